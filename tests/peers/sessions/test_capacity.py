"""Many sessions: no more than was promised is held, and nothing is left of those that are over."""

import asyncio
import gc
from collections.abc import Iterable
from contextlib import AsyncExitStack

import pytest

from helpers.loopback import (
    Peer,
    WatchedSpan,
    dialed,
    eventually,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.access.limits import AccessLimits
from peers.compute.cache_budget import MAX_RETRY_MS, MIN_RETRY_MS
from peers.sessions.openings import MAX_OPENING_PER_LINK
from peers.sessions.session import PeerSession
from swarm.model.cache import KVCache
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.link import Link
from swarm.util.rates import Rate
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Close, Fault, Opened, Result, WireMessage

MIDDLE = 2
# no client opens so many so fast
HURRIED = AccessLimits(openings_of_address=Rate(1e9, 1e9), openings=Rate(1e9, 1e9))


@pytest.fixture(scope="module")
def spans(tiny: Checkpoint) -> tuple[Span, Span]:
    return Span.load(tiny, 0, MIDDLE), Span.load(tiny, MIDDLE, LAYERS)


async def hear(link: Link, count: int) -> list[WireMessage]:
    return [await soon(link.receive()) for _ in range(count)]


async def send(link: Link, messages: Iterable[WireMessage]) -> None:
    for message in messages:
        await link.send(message)


def held_bytes(peer: Peer) -> int:
    return sum(session._cache.nbytes for session in peer.handler.sessions.values())


def alive() -> int:
    """Sessions and caches in memory."""
    gc.collect()
    return sum(type(thing) in (KVCache, PeerSession) for thing in gc.get_objects())


async def test_sessions_that_open_at_once_never_hold_more_than_the_budget(
    spans: tuple[Span, Span], tiny: Checkpoint
) -> None:
    each, links, at_once = 100, 8, 8  # tokens of a session: no multiple of a block
    async with (
        Peer(spans[0], tiny.fingerprint, cache_tokens=1_050) as peer,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(dialed(peer.server)) for _ in range(links)]
        numbers = [range(i * at_once, (i + 1) * at_once) for i in range(links)]
        opens = [
            [
                opening(tiny.fingerprint, 0, MIDDLE, session=session_id(n), max_tokens=each)
                for n in mine
            ]
            for mine in numbers
        ]
        await asyncio.gather(*map(send, clients, opens))
        answers = await asyncio.gather(*(hear(client, at_once) for client in clients))

        opened = [[a.session for a in mine if isinstance(a, Opened)] for mine in answers]
        refused = [answer for mine in answers for answer in mine if isinstance(answer, Fault)]
        assert (sum(map(len, opened)), len(refused)) == (10, 54)
        for fault in refused:
            assert fault.code == FaultCode.BUSY
            assert fault.retry_ms is not None
            assert MIN_RETRY_MS <= fault.retry_ms <= MAX_RETRY_MS

        promised = 1_050 * spans[0].nbytes_per_token
        for first in range(1, each, 11):  # until all is used, by steps that grow the caches
            count = min(11, each + 1 - first)
            frames = [
                [tokens_frame(first, (3,) * count, session=session) for session in mine]
                for mine in opened
            ]
            await asyncio.gather(*map(send, clients, frames))
            results = await asyncio.gather(
                *(hear(c, len(mine)) for c, mine in zip(clients, opened, strict=True))
            )
            assert all(isinstance(result, Result) for mine in results for result in mine)
            assert held_bytes(peer) <= promised
        assert held_bytes(peer) == 10 * each * spans[0].nbytes_per_token


async def test_a_client_that_floods_is_cut_off_and_its_neighbour_is_not(
    spans: tuple[Span, Span], tiny: Checkpoint
) -> None:
    slow = WatchedSpan(spans[0])
    async with (
        Peer(slow, tiny.fingerprint) as peer,  # type: ignore[arg-type]
        dialed(peer.server) as flooding,
        dialed(peer.server) as other,
    ):
        for link, number in ((flooding, 1), (other, 2)):
            await send(link, [opening(tiny.fingerprint, 0, MIDDLE, session=session_id(number))])
            assert isinstance(await soon(link.receive()), Opened)
        slow.go_on.clear()
        await send(
            flooding,
            (tokens_frame(first, (3,), session=session_id(1), tail=0) for first in range(1, 1000)),
        )
        fault = await soon(flooding.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.BAD_MESSAGE, session_id(1))
        assert "tokens wait already" in fault.text
        assert set(peer.handler.sessions) == {session_id(2)}
        slow.go_on.set()
        await send(other, [tokens_frame(1, (3,), session=session_id(2))])
        assert isinstance(await soon(other.receive()), Result)


async def test_a_thousand_sessions_leave_nothing_behind(
    spans: tuple[Span, Span], tiny: Checkpoint
) -> None:
    async with (
        Peer(spans[0], tiny.fingerprint, cache_tokens=4096, limits=HURRIED) as first,
        Peer(spans[1], tiny.fingerprint, cache_tokens=4096, limits=HURRIED) as second,
        dialed(first.server) as to_first,
        dialed(second.server) as to_second,
    ):
        tasks, before = 0, alive()
        for start in range(0, 1000, MAX_OPENING_PER_LINK):
            ids = [
                session_id(number)
                for number in range(start, min(start + MAX_OPENING_PER_LINK, 1000))
            ]
            await send(
                to_second,
                (
                    opening(tiny.fingerprint, MIDDLE, LAYERS, session=id, previous=first.id)
                    for id in ids
                ),
            )
            assert all(isinstance(answer, Opened) for answer in await hear(to_second, len(ids)))
            hop = second.server.hop
            await send(
                to_first, (opening(tiny.fingerprint, 0, MIDDLE, session=id, next=hop) for id in ids)
            )
            assert all(isinstance(answer, Opened) for answer in await hear(to_first, len(ids)))
            await send(
                to_first, (tokens_frame(1, (3, 4, 5), session=id, parents=(1, 1, 2)) for id in ids)
            )
            assert all(isinstance(answer, Result) for answer in await hear(to_second, len(ids)))
            await asyncio.gather(
                *(send(link, (Close(session=id) for id in ids)) for link in (to_first, to_second))
            )
            await eventually(lambda: first.idle and second.idle)
            await eventually(
                lambda: (
                    not first.handler.sessions._farewells and not second.handler.sessions._farewells
                )
            )
            tasks = tasks or len(asyncio.all_tasks())
        assert len(asyncio.all_tasks()) <= tasks  # links that are silent by now have one less
        for peer in (first, second):
            assert not any(peer.handler._openings._tasks.values())
            assert not peer.budget._held
            assert not peer.scheduler._waiting
            # the link to the second waits for more
            assert len(peer.handler.sessions.next_links._users) == (peer is first)
        assert alive() == before
