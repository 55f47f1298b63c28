"""The next peer of a session fails, is replaced, or has no say; over real links."""

import asyncio
from typing import Any

import pytest

from helpers.lone_peer import (
    HIDDEN,
    MIDDLE,
    NOBODY,
    close_to,
    expected,
    hang,
    lone_peer,
    open_both,
    reroute,
)
from helpers.loopback import (
    Peer,
    Server,
    ask,
    dialed,
    eventually,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Close,
    Fault,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Rerouted,
    Result,
)


async def test_a_next_peer_that_is_not_there_is_named(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        fault = await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=NOBODY))
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, NOBODY.peer_id)
        assert peer.idle


async def test_a_next_peer_that_dies_is_named_at_once(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link), Server(hang) as following:
        assert isinstance(
            await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=following.hop)), Opened
        )
        following.links[0]._transport.abort()
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, following.identity.peer_id)
        assert len(peer.handler.sessions) == 1, "another one may take the place"


async def test_a_fault_of_the_next_peer_is_passed_on_with_its_name(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    lower, upper, _ = spans
    async with lone_peer(lower, tiny) as (peer, link), Peer(upper, tiny.fingerprint) as following:
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=following.server.hop))
        fault = await ask(link, tokens_frame(1, (3,)))  # no session is open over there
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (FaultCode.NO_SESSION, following.server.identity.peer_id)
        assert len(peer.handler.sessions) == 1, "another one may take the place"


async def test_a_next_peer_has_no_say_in_sessions_of_others(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async def slander(link: Link) -> None:
        await link.receive()
        for number in (1, 2):
            await link.send(Fault(code=FaultCode.INTERNAL, text="", session=session_id(number)))
        await hang(link)

    async with (
        lone_peer(spans[0], tiny) as (peer, link),
        Server(hang) as good,
        Server(slander) as bad,
    ):
        first = opening(tiny.fingerprint, 0, MIDDLE, session=session_id(1), next=good.hop)
        second = opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2), next=bad.hop)
        assert isinstance(await ask(link, first), Opened)
        assert isinstance(await ask(link, second), Opened)
        fault = await ask(link, tokens_frame(1, (3,), session=session_id(2)))
        assert isinstance(fault, Fault)
        assert fault.session == session_id(2)
        assert await ask(link, Ping(nonce=1)) == Pong(nonce=1), "nothing is said of the other one"
        assert [peer.handler.sessions[session_id(number)].downstream.lost for number in (1, 2)] == [
            False,
            True,
        ]


async def test_another_peer_takes_the_place_of_the_next_one(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    lower, upper, whole = spans
    async with (
        lone_peer(lower, tiny) as (first, to_first),
        lone_peer(upper, tiny) as (third, to_third),
    ):
        async with Peer(upper, tiny.fingerprint) as second, dialed(second.server) as to_second:
            await open_both(to_first, first, to_second, second)
            await to_first.send(tokens_frame(1, (3, 4)))
            assert isinstance(await soon(to_second.receive()), Result)
        assert isinstance(await soon(to_first.receive()), Fault)
        assert isinstance(
            await ask(to_third, opening(tiny.fingerprint, MIDDLE, LAYERS, previous=first.id)),
            Opened,
        )
        assert await ask(to_first, reroute(third.server.hop)) == Rerouted(
            session=session_id(), epoch=1
        )
        await to_first.send(tokens_frame(3, (5,), root=2, epoch=1))
        close_to(await soon(to_third.receive()), expected(whole, (3, 4), (5,))[-1:])


async def test_a_fault_that_comes_late_is_not_the_new_peers(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    go_on = asyncio.Event()

    async def complain(link: Link) -> None:
        await go_on.wait()
        await link.send(Fault(code=FaultCode.INTERNAL, text="", session=session_id()))

    async with (
        lone_peer(spans[0], tiny) as (peer, link),
        Server(complain) as old,
        Server(hang) as new,
    ):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=old.hop))
        assert await ask(link, reroute(new.hop, root=0)) == Rerouted(session=session_id(), epoch=1)
        assert len(peer.handler.sessions.next_links._listeners) == 2
        go_on.set()
        await eventually(lambda: len(peer.handler.sessions.next_links._listeners) == 1)
        assert await ask(link, Ping(nonce=1)) == Pong(nonce=1), "nothing was said before"
        assert not peer.handler.sessions[session_id()].downstream.lost


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"epoch": 0}, FaultCode.BAD_MESSAGE), ({"root": 1}, FaultCode.OUT_OF_ORDER)],
    ids=["not newer", "forgotten"],
)
async def test_a_reroute_that_cannot_be_ends_the_session(
    spans: tuple[Span, ...], tiny: Checkpoint, changes: dict[str, Any], code: FaultCode
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link), Server(hang) as following:
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=following.hop))
        await link.send(tokens_frame(1, (3, 4)))
        await link.send(tokens_frame(3, (5,), root=2, tail=0))  # not to be joined
        await eventually(lambda: peer.handler.sessions[session_id()].downstream.passed == 3)
        fault = await ask(link, reroute(following.hop, **changes))
        assert isinstance(fault, Fault)
        assert (fault.code, fault.peer) == (code, None)
        assert peer.idle


async def test_the_last_peer_takes_no_reroute(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[1], tiny) as (peer, link):
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        fault = await ask(link, reroute(NOBODY))
        assert isinstance(fault, Fault)
        assert (fault.code, peer.idle) == (FaultCode.BAD_MESSAGE, True)


async def test_only_its_client_may_reroute_or_probe_a_session(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with (
        lone_peer(spans[0], tiny) as (peer, link),
        dialed(peer.server) as stranger,
        Server(hang) as following,
    ):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE, next=following.hop))
        for message in (
            reroute(NOBODY, root=0),
            Probe(session=session_id()),
            Probe(session=session_id(9)),
        ):
            fault = await ask(stranger, message)
            assert isinstance(fault, Fault)
            assert (fault.code, fault.session) == (FaultCode.NO_SESSION, message.session)
        assert not peer.handler.sessions[session_id()].downstream.lost


async def test_a_probe_tells_how_far_a_session_has_come(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[2], tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        assert await ask(link, Probe(session=session_id())) == Progress(
            session=session_id(), epoch=0, last=0, passed=0
        )
        await ask(link, tokens_frame(1, (3, 4, 5)))
        await ask(link, tokens_frame(6, (6,), root=2, parents=(4,), epoch=2))
        assert await ask(link, Probe(session=session_id())) == Progress(
            session=session_id(), epoch=2, last=6, passed=6, batches=2
        )


async def test_what_is_kept_is_bounded_by_a_budget_of_its_own(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    room = 100 * HIDDEN * 4
    async with (
        lone_peer(spans[0], tiny, history_bytes=room) as (peer, link),
        Server(hang) as following,
    ):
        for number in (1, 2):
            message = opening(
                tiny.fingerprint, 0, MIDDLE, session=session_id(number), next=following.hop
            )
            assert isinstance(await ask(link, message), Opened)
            assert peer.handler.sessions.histories.free_bytes == 36 * HIDDEN * 4
        fault = await ask(link, reroute(following.hop, session=session_id(2), root=0))
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.NO_HISTORY, session_id(2))
        assert await ask(link, reroute(following.hop, session=session_id(1), root=0)) == Rerouted(
            session=session_id(1), epoch=1
        )
        await link.send(Close(session=session_id(1)))
        await eventually(lambda: peer.idle)
