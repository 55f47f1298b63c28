"""Links to next peers: shared, given back, and watched."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable

import pytest

from helpers.loopback import Server, eventually, listen, new_member, session_id, soon
from peers.sessions import next_links
from peers.sessions.next_links import NextLinks
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Hop, Pong

FAULT = Fault(code=FaultCode.INTERNAL, text="it hurts", session=session_id())


class Heard:
    def __init__(self) -> None:
        self.faults: list[tuple[Link, Fault]] = []
        self.lost: list[Link] = []


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def links(heard: Heard) -> AsyncIterator[NextLinks]:
    dialer = Dialer(new_member())
    links = NextLinks(
        dialer, lambda link, fault: heard.faults.append((link, fault)), heard.lost.append
    )
    yield links
    await links.close()
    await dialer.close()


async def test_sessions_to_the_same_peer_share_a_link_even_when_they_come_at_once(
    links: NextLinks,
) -> None:
    async with Server(listen) as server:
        shared = await soon(asyncio.gather(*(links.to(server.hop) for _ in range(5))))
        shared.append(await soon(links.to(server.hop)))
        assert len(set(shared)) == 1
        assert len(server.links) == 1


async def test_a_peer_that_is_not_there_is_said_to_everybody_who_asked(links: NextLinks) -> None:
    nobody = Hop(peer_id="1" * 52, address="127.0.0.1:1", certificate="0" * 64)
    outcomes = await soon(
        asyncio.gather(*(links.to(nobody) for _ in range(3)), return_exceptions=True)
    )
    assert [type(outcome) for outcome in outcomes] == [LinkClosed] * 3
    del outcomes
    gc.collect()
    assert not links._dialing


async def test_one_who_gives_up_while_dialling_does_not_stop_the_others(links: NextLinks) -> None:
    async with Server(listen) as server:
        first, second = (asyncio.create_task(links.to(server.hop)) for _ in range(2))
        await asyncio.sleep(0)
        await end(first)
        assert not (await soon(second)).closed


async def test_faults_and_losses_are_passed_on(links: NextLinks, heard: Heard) -> None:
    async def complain(link: Link) -> None:
        await link.send(FAULT)

    async with Server(complain) as server:
        link = await soon(links.to(server.hop))
        await eventually(lambda: heard.lost == [link])
        assert heard.faults == [(link, FAULT)]
        links.release(link)  # of a link that is lost already: nothing to do
        assert not links._users
        again = await soon(links.to(server.hop))
        assert again is not link


async def test_a_next_peer_that_says_anything_else_is_left(links: NextLinks, heard: Heard) -> None:
    async def chat(link: Link) -> None:
        await link.send(Pong(nonce=1))
        await listen(link)

    async with Server(chat) as server:
        link = await soon(links.to(server.hop))
        await eventually(lambda: heard.lost == [link])


async def test_links_that_nobody_uses_are_few(
    links: NextLinks, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_links, "MAX_IDLE", 1)
    async with Server(listen) as first, Server(listen) as second, Server(listen) as third:
        used, *idle = [await soon(links.to(server.hop)) for server in (first, second, third)]
        for link in idle:
            links.release(link)
        await eventually(lambda: heard.lost == idle[:1])
        assert await soon(links.to(third.hop)) is idle[1]
        assert await soon(links.to(first.hop)) is used
        assert await soon(links.to(second.hop)) is not idle[0]


async def test_close_ends_all_links_and_listeners(links: NextLinks, heard: Heard) -> None:
    async with Server(listen) as server:
        link = await soon(links.to(server.hop))
        await asyncio.sleep(0)
        await links.close()
        await links.close()
        assert link.closed
        assert not links._listeners
        await eventually(_all_closed(server))


def _all_closed(server: Server) -> Callable[[], bool]:
    return lambda: all(link.closed for link in server.links)
