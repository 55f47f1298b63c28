"""Finding out who answers, against real peers, dead addresses and peers that hang."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from helpers.clock import Clock
from helpers.loopback import Server, eventually, listen, new_member, pong, soon
from swarm.identity import Identity
from swarm.network import pool
from swarm.network.links import connection, handshake
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link
from swarm.network.pool import Connections, candidates
from swarm.wire.messages import Ping, Pong, WireMessage

DEAD = "127.0.0.1:1"


class Hanging(Server):
    """Takes links, and never says hello."""

    def __init__(self) -> None:
        super().__init__(pong)
        self.limiter.admits = self._hang  # type: ignore[method-assign]

    async def _hang(self, link: Link) -> bool:
        self.links.append(link)
        await asyncio.Event().wait()
        return False


@pytest.fixture
async def connections(clock: Clock) -> AsyncIterator[Connections]:
    dialer = Dialer(new_member())
    connections = Connections(dialer, clock)
    yield connections
    await connections.close()
    await dialer.close()


async def test_peers_that_answer_are_reached_and_the_others_left_out(
    connections: Connections,
) -> None:
    async with Server(pong) as good, Server(pong) as impostor:
        records = [
            good.record(),
            impostor.record(certificate="0" * 64),
            good.record(peer_id=Identity.generate().peer_id, addresses=(DEAD,)),
        ]
        reached = await soon(connections.reach(records))
        assert list(reached) == [good.identity.peer_id]
        assert reached[good.identity.peer_id].rtt_ms < float("inf")
    assert await connections.reach([]) == {}


async def test_the_next_address_is_tried_when_one_is_dead(connections: Connections) -> None:
    async with Server(pong) as server:
        reached = await soon(connections.reach([server.record(addresses=(DEAD, server.address))]))
        assert reached[server.identity.peer_id].link.address == server.address


async def test_connections_that_are_not_kept_are_closed(
    connections: Connections, clock: Clock
) -> None:
    async with Server(pong) as one, Server(pong) as other:
        reached = await soon(connections.reach([one.record(), other.record()]))
        await soon(connections.keep({one.identity.peer_id}, lately_s=30.0))
        assert not reached[other.identity.peer_id].closed, "somebody has just found it"
        clock.now += 30.0
        await soon(connections.keep({one.identity.peer_id}, lately_s=30.0))
        assert not reached[one.identity.peer_id].closed
        assert reached[other.identity.peer_id].closed
        again = await soon(connections.reach([other.record()]))
        assert not again[other.identity.peer_id].closed


async def test_a_connection_is_kept_and_shared_by_searches_at_the_same_time(
    connections: Connections,
) -> None:
    async with Server(pong) as server:
        searches = [connections.reach([server.record()]) for _ in range(5)]
        found = [
            reached[server.identity.peer_id] for reached in await soon(asyncio.gather(*searches))
        ]
        found.append((await soon(connections.reach([server.record()])))[server.identity.peer_id])
        assert len(set(map(id, found))) == 1
        assert len(server.links) == 1


async def test_searches_at_the_same_time_share_one_ping(connections: Connections) -> None:
    """Each waits for no other: with a hundred, the last one's would come too late."""
    async with Server(listen) as server:
        pings: list[WireMessage] = []
        answer = asyncio.Event()

        async def late(link: Link) -> None:
            async for message in link:
                pings.append(message)
                await answer.wait()
                if isinstance(message, Ping):
                    await link.send(Pong(nonce=message.nonce))

        server._serve = late
        (first,) = (await soon(connections.reach([server.record()]))).values()
        searches = [asyncio.create_task(connections.reach([server.record()])) for _ in range(9)]
        await eventually(lambda: bool(pings))
        searches[0].cancel()
        answer.set()
        for search in searches[1:]:
            assert await soon(search) == {server.identity.peer_id: first}
        assert len(pings) == 1


async def test_a_lost_connection_is_made_anew(connections: Connections) -> None:
    async with Server(pong) as server:
        (first,) = (await soon(connections.reach([server.record()]))).values()
        server.links[0]._transport.abort()
        await eventually(lambda: first.closed)
        (second,) = (await soon(connections.reach([server.record()]))).values()
        assert second is not first
        assert not second.closed


async def test_a_peer_that_hangs_keeps_nobody_waiting(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 60)
    monkeypatch.setattr(pool, "REACH_TIMEOUT_S", 0.5)
    async with Server(pong) as good, Hanging() as bad:
        reached = await soon(connections.reach([bad.record(), good.record()]))
        assert list(reached) == [good.identity.peer_id]
        assert list(connections._open) == [good.identity.peer_id]
        await eventually(lambda: all(link._transport.is_closing() for link in bad.links))


async def test_one_late_answer_does_not_end_the_sessions_on_a_connection(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(listen) as server:
        (kept,) = (await soon(connections.reach([server.record()]))).values()
        monkeypatch.setattr(connection, "PING_TIMEOUT_S", 0.05)
        assert await soon(connections.reach([server.record()])) == {}
        assert not kept.closed


async def test_a_cancelled_search_leaves_no_connection(connections: Connections) -> None:
    async with Hanging() as server:
        search = asyncio.create_task(connections.reach([server.record()]))
        await eventually(lambda: bool(server.links))
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(search)
        assert not connections._open
        await eventually(lambda: server.links[0]._transport.is_closing())


async def test_candidates_are_of_all_parts_of_a_model() -> None:
    server = Server(pong)
    server.address = DEAD
    crowd = [server.record(peer_id=Identity.generate().peer_id, last_layer=2) for _ in range(20)]
    late = server.record(peer_id=Identity.generate().peer_id, first_layer=2)
    chosen = candidates([*crowd, late], at_most=10)
    assert len(chosen) == 10
    assert late in chosen
    assert set(map(id, candidates([*crowd, late], at_most=50))) == set(map(id, [*crowd, late]))
