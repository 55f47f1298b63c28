"""Peers on loopback: real links, a real span of a tiny Llama, and clients that behave well and
badly."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from helpers.loopback import (
    Peer,
    Server,
    WatchedSpan,
    ask,
    dialed,
    eventually,
    hidden_frame,
    opening,
    session_id,
    somebody,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS, VOCAB
from peers.access.limits import Limits
from peers.compute.cache_budget import CacheBudget
from peers.compute.scheduler import MAX_DECODE_TOKENS, Scheduler
from peers.sessions import downstream as outlets
from peers.sessions import openings
from peers.sessions import session as sessions
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span, Work
from swarm.network.links import link as links
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.messages import (
    MAX_HOPS,
    Cancel,
    Close,
    Fault,
    FaultCode,
    Frame,
    Hop,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    Result,
)
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import MAX_TAIL, TokenTree

MIDDLE = 2
HIDDEN = 32


@pytest.fixture(scope="module")
def spans(tiny: Checkpoint) -> tuple[Span, Span, Span]:
    """The lower half, the upper half, and the whole."""
    return Span.load(tiny, 0, MIDDLE), Span.load(tiny, MIDDLE, LAYERS), Span.load(tiny, 0, LAYERS)


@asynccontextmanager
async def lone_peer(
    span: Span, tiny: Checkpoint, **options: Any
) -> AsyncIterator[tuple[Peer, Link]]:
    """A peer and a client's link to it. In the end nothing may be left of any session."""
    async with Peer(span, tiny.fingerprint, **options) as peer:
        async with dialed(peer.server) as link:
            yield peer, link
        await eventually(lambda: peer.idle)


async def refused(link: Link, opening: Open) -> FaultCode:
    fault = await ask(link, opening)
    assert isinstance(fault, Fault)
    assert fault.session == opening.session
    return fault.code


async def told_to_come_back(link: Link, opening: Open) -> bool:
    fault = await ask(link, opening)
    assert isinstance(fault, Fault)
    return fault.code == FaultCode.BUSY and fault.retry_ms is not None


def expected(span: Span, *chunks: tuple[int, ...]) -> torch.Tensor:
    tokens = torch.tensor([token for chunk in chunks for token in chunk])
    return span.forward([Work.behind(span.new_cache(), tokens)])[0]


def close_to(answer: Message, hidden: torch.Tensor) -> None:
    assert isinstance(answer, Result), answer
    torch.testing.assert_close(answer.hidden.unpack(), hidden, rtol=1e-4, atol=1e-4)


async def test_frames_are_answered_with_what_the_span_computes(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    whole = spans[2]
    async with lone_peer(whole, tiny) as (peer, link):
        assert await ask(link, opening(tiny.fingerprint, 0, LAYERS)) == Opened(session=session_id())
        assert peer.budget.free_tokens == peer.budget.total_tokens - 64
        first = await ask(link, tokens_frame(1, (3, 4, 5), tail=1))
        close_to(first, expected(whole, (3, 4, 5))[-1:])
        assert isinstance(first, Result)
        assert (first.count, len(first.compute_ms), len(first.queue_ms)) == (3, 1, 1)
        close_to(
            await ask(link, tokens_frame(4, (6, 7), root=3)),
            expected(whole, (3, 4, 5), (6, 7))[-2:],
        )
        # A newer epoch goes back to its root.
        back = tokens_frame(6, (8,), root=4, parents=(2,), epoch=1)
        close_to(await ask(link, back), expected(whole, (3, 4, 5, 6), (8,))[-1:])
        await link.send(Close(session=session_id()))
        await eventually(lambda: peer.idle)
        await link.send(tokens_frame(7, (9,), epoch=1))  # late: nobody need be told
        fault = await ask(link, Probe(session=session_id()))
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.NO_SESSION


async def open_both(to_first: Link, first: Peer, to_second: Link, second: Peer) -> None:
    for link, message in (
        (to_second, opening(second.fingerprint, MIDDLE, LAYERS, previous=first.id)),
        (to_first, opening(first.fingerprint, 0, MIDDLE, next=second.server.hop)),
    ):
        assert isinstance(await ask(link, message), Opened)


async def test_two_peers_compute_what_one_computes(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    lower, upper, whole = spans
    async with (
        lone_peer(lower, tiny) as (first, to_first),
        lone_peer(upper, tiny) as (second, to_second),
    ):
        await open_both(to_first, first, to_second, second)
        await to_first.send(tokens_frame(1, (3, 4, 5)))
        answer = await soon(to_second.receive())
        close_to(answer, expected(whole, (3, 4, 5)))
        assert isinstance(answer, Result)
        assert len(answer.compute_ms) == len(answer.queue_ms) == 2
        assert len(first.handler.sessions) == len(second.handler.sessions) == 1


async def test_branches_go_through_two_peers_and_losing_ones_are_forgotten_on_both(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    lower, upper, whole = spans
    async with (
        lone_peer(lower, tiny) as (first, to_first),
        lone_peer(upper, tiny) as (second, to_second),
    ):
        await open_both(to_first, first, to_second, second)
        # 3, and behind it 4, or 5 and 6
        await to_first.send(tokens_frame(1, (3, 4, 5, 6), parents=(1, 1, 2, 1)))
        first_answer = await soon(to_second.receive())
        paths = ((3,), (3, 4), (3, 5), (3, 5, 6))
        close_to(first_answer, torch.cat([expected(whole, path)[-1:] for path in paths]))
        await to_first.send(tokens_frame(5, (7,), root=3))
        close_to(await soon(to_second.receive()), expected(whole, (3, 5, 6, 7))[-1:])
        caches = [peer.handler.sessions[session_id()]._cache for peer in (first, second)]
        assert [cache.length for cache in caches] == [4, 4]


async def test_a_model_that_takes_no_branches_says_so_when_a_session_is_opened(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Span, "branches", False)
    async with lone_peer(spans[2], tiny) as (_, link):
        assert await ask(link, opening(tiny.fingerprint, 0, LAYERS)) == Opened(
            session=session_id(), branches=False
        )
        assert isinstance(await ask(link, tokens_frame(1, (3, 4))), Result)
        fault = await ask(link, tokens_frame(3, (5, 6), parents=(1, 2)))
        assert isinstance(fault, Fault)
        assert (fault.code, "takes no branches" in fault.text) == (FaultCode.BAD_MESSAGE, True)


async def test_a_part_of_the_span_may_be_asked_for(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    whole = spans[2]
    async with lone_peer(whole, tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, 1, 3))
        hidden = torch.randn(2, HIDDEN)
        direct = whole.forward([Work.behind(whole.new_cache(1, 3), hidden)], 1, 3)[0]
        close_to(await ask(link, hidden_frame(1, hidden)), direct)


async def test_a_long_prompt_may_come_in_one_burst(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny, cache_tokens=256) as (_, link):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE, max_tokens=200))
        for first in range(1, 201):
            await link.send(tokens_frame(first, (3,), tail=0))
        answers = [await soon(link.receive()) for _ in range(200)]
        assert [answer.first for answer in answers if isinstance(answer, Result)] == list(
            range(1, 201)
        )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fingerprint": "f" * 32}, FaultCode.WRONG_MODEL),
        ({"first": 1}, FaultCode.WRONG_LAYERS),
        ({"last": LAYERS + 1}, FaultCode.WRONG_LAYERS),
        ({"max_tokens": 256 + MAX_TAIL + 1}, FaultCode.BAD_MESSAGE),
        ({"max_tokens": 129}, FaultCode.BUSY),
    ],
    ids=lambda value: str(value),
)
async def test_sessions_that_cannot_be_are_refused(
    spans: tuple[Span, ...], tiny: Checkpoint, change: dict[str, Any], code: FaultCode
) -> None:
    async with lone_peer(spans[1], tiny, cache_tokens=128) as (peer, link):
        fields = {"fingerprint": tiny.fingerprint, "first": MIDDLE, "last": LAYERS} | change
        assert await refused(link, opening(**fields)) == code
        assert peer.idle


async def test_a_session_is_opened_once(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link), dialed(peer.server) as other:
        message = opening(tiny.fingerprint, 0, MIDDLE)
        assert isinstance(await ask(link, message), Opened)
        for again in (link, other):
            assert await refused(again, message) == FaultCode.BAD_MESSAGE
        assert len(peer.handler.sessions) == 1
        assert peer.budget.free_tokens == peer.budget.total_tokens - 64


async def test_sessions_are_bounded_in_number(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny, limits=Limits(sessions=1)) as (_, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        assert await told_to_come_back(
            link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        )


async def test_a_draining_peer_takes_no_more(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        peer.handler.sessions.draining = True
        second = opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        assert await refused(link, second) == FaultCode.DRAINING
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        await peer.handler.close()
        told = await soon(link.receive())
        assert isinstance(told, Fault)
        assert told.code == FaultCode.DRAINING
        assert peer.idle


async def test_a_draining_peer_still_answers_pings(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, _):
        peer.handler.sessions.draining = True
        async with dialed(peer.server) as another:
            assert await ask(another, Ping(nonce=1)) == Pong(nonce=1)


async def test_sessions_may_end_by_themselves_before_layers_are_put_down(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        resting = asyncio.create_task(peer.handler.put_down(grace_s=60.0))
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        await link.send(Close(session=session_id()))
        await soon(resting)
        assert peer.idle


async def test_other_layers_are_taken_up_while_links_stay_open(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        assert isinstance(await ask(link, opening(tiny.fingerprint, 0, MIDDLE)), Opened)
        await soon(peer.handler.put_down())
        told = await soon(link.receive())
        assert isinstance(told, Fault)
        assert told.code == FaultCode.DRAINING
        assert peer.idle
        assert await refused(link, opening(tiny.fingerprint, 0, MIDDLE)) == FaultCode.DRAINING

        scheduler, budget = Scheduler(spans[1]), CacheBudget(100)
        computing = asyncio.create_task(scheduler.run())
        peer.handler.take_up(scheduler, budget)
        assert await refused(link, opening(tiny.fingerprint, 0, MIDDLE)) == FaultCode.WRONG_LAYERS
        assert isinstance(await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS)), Opened)
        assert isinstance(await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN))), Result)
        assert budget.free_tokens == 36
        await peer.handler.close()
        assert budget.free_tokens == 100
        await end(computing)


BAD_FRAMES: dict[str, tuple[Frame, FaultCode]] = {
    "gap": (tokens_frame(2, (3,)), FaultCode.OUT_OF_ORDER),
    "too many tokens": (tokens_frame(1, (3,) * 65), FaultCode.BAD_MESSAGE),
    "no such token": (tokens_frame(1, (VOCAB,)), FaultCode.BAD_MESSAGE),
    "hidden states for layer 0": (hidden_frame(1, torch.zeros(1, HIDDEN)), FaultCode.BAD_MESSAGE),
    "too many hops": (tokens_frame(1, (3,), compute_ms=(1.0,) * MAX_HOPS), FaultCode.BAD_MESSAGE),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_frame_that_breaks_the_rules_ends_its_session_only(
    spans: tuple[Span, ...], tiny: Checkpoint, name: str
) -> None:
    frame, code = BAD_FRAMES[name]
    async with lone_peer(spans[0], tiny) as (peer, link):
        for number in (0, 1):
            await ask(link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(number)))
        fault = await ask(link, frame)
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (code, session_id())
        await eventually(lambda: peer.budget.free_tokens == peer.budget.total_tokens - 64)
        assert isinstance(await ask(link, tokens_frame(1, (3,), session=session_id(1))), Result)


async def test_hidden_states_of_another_width_are_refused(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[1], tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        fault = await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN + 1)))
        assert isinstance(fault, Fault)
        assert "32 wide" in fault.text


async def test_frames_of_no_session_are_answered(spans: tuple[Span, ...], tiny: Checkpoint) -> None:
    async with lone_peer(spans[0], tiny) as (_, link):
        fault = await ask(link, tokens_frame(1, (3,), session=session_id(9)))
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.NO_SESSION, session_id(9))


async def test_stale_epochs_are_dropped_without_an_answer(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    whole = spans[2]
    async with lone_peer(whole, tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        assert isinstance(await ask(link, tokens_frame(1, (3,), epoch=2)), Result)
        await link.send(tokens_frame(2, (4,), epoch=1))
        close_to(await ask(link, tokens_frame(2, (5,), epoch=2)), expected(whole, (3,), (5,))[-1:])


async def test_a_cancel_makes_frames_stale_before_a_newer_one_comes(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[2], tiny) as (peer, link), dialed(peer.server) as stranger:
        await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        await stranger.send(Cancel(session=session_id(), epoch=9))  # not theirs to cancel
        assert await ask(stranger, Ping(nonce=1)) == Pong(nonce=1)
        await link.send(Cancel(session=session_id(), epoch=2))
        await link.send(tokens_frame(1, (3,), epoch=1))
        answer = await ask(link, tokens_frame(1, (4,), epoch=2))
        assert isinstance(answer, Result)
        assert answer.epoch == 2


async def test_a_ping_is_answered_while_others_compute(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (_, link):
        assert await ask(link, Ping(nonce=77)) == Pong(nonce=77)


async def test_a_link_that_closes_frees_its_sessions(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        async with dialed(peer.server) as leaving:
            for number in (1, 2):
                await ask(leaving, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(number)))
            await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
            await leaving.send(tokens_frame(1, (3,) * 60, session=session_id(1)))
            leaving._transport.abort()  # in the middle of everything
        await eventually(lambda: len(peer.handler.sessions) == 1)
        assert peer.budget.free_tokens == peer.budget.total_tokens - 64
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)


@pytest.mark.parametrize("garbage", [b"\xc1", b"", "text"])
async def test_a_link_that_speaks_nonsense_is_told_and_closed(
    spans: tuple[Span, ...], tiny: Checkpoint, garbage: bytes | str
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, link):
        await (
            link.send_bytes(garbage)
            if isinstance(garbage, bytes)
            else link._socket.send_str(garbage)
        )
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.BAD_MESSAGE
        with pytest.raises(LinkClosed):
            await soon(link.receive())
        await eventually(lambda: not peer.handler._openings.links)


async def test_what_a_peer_never_takes_closes_the_link(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (_, link):
        fault = await ask(link, Pong(nonce=1))
        assert isinstance(fault, Fault)
        assert "takes no Pong" in fault.text


async def test_an_idle_session_gives_its_cache_back(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny, idle_timeout_s=0.05) as (peer, link):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.NO_SESSION
        assert peer.idle


# The next peer.

NOBODY = Hop(peer_id=Identity.generate().peer_id, address="127.0.0.1:1", certificate="0" * 64)


async def hang(link: Link) -> None:
    await asyncio.Event().wait()


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
        assert [peer.handler.sessions[session_id(number)].outlet.lost for number in (1, 2)] == [
            False,
            True,
        ]


def reroute(hop: Hop, **changes: Any) -> Reroute:
    return Reroute(**({"session": session_id(), "epoch": 1, "root": 2, "next": hop} | changes))


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
        assert not peer.handler.sessions[session_id()].outlet.lost


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
        await eventually(lambda: peer.handler.sessions[session_id()].outlet.passed == 3)
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
        assert not peer.handler.sessions[session_id()].outlet.lost


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


async def test_a_peer_that_computes_for_others_says_so_to_those_who_wait(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.Semaphore(0)
    forward = spans[2].forward

    def slow(*args: Any) -> list[torch.Tensor]:
        turns.acquire()
        return forward(*args)

    monkeypatch.setattr(spans[2], "forward", slow)
    async with lone_peer(spans[2], tiny) as (_, link):
        for number in (1, 2):
            message = opening(
                tiny.fingerprint, 0, LAYERS, session=session_id(number), max_tokens=128
            )
            assert isinstance(await ask(link, message), Opened)
        prompt = tuple(range(3, 3 + MAX_DECODE_TOKENS + 1))  # of which a batch takes one chunk
        for number in (1, 2):
            await link.send(tokens_frame(1, prompt, session=session_id(number)))

        async def waiting() -> tuple[bool, int]:
            told = await ask(link, Probe(session=session_id(2)))
            assert isinstance(told, Progress)
            return told.queued, told.batches

        while (told := await waiting()) != (True, 0):
            assert told == (False, 0)  # its task has not taken the frame up
        turns.release()
        assert isinstance(await soon(link.receive()), Result)  # of the first
        assert await waiting() == (True, 1)
        turns.release()
        assert isinstance(await soon(link.receive()), Result)
        assert await waiting() == (False, 2)


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


async def test_an_opening_that_fails_at_the_last_step_keeps_nothing(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    async with lone_peer(spans[0], tiny) as (peer, link), Server(hang) as following:
        monkeypatch.setattr(spans[0], "new_cache", fail)
        message = opening(tiny.fingerprint, 0, MIDDLE, next=following.hop)
        assert await refused(link, message) == FaultCode.INTERNAL
        assert peer.idle
        assert not any(peer.handler.sessions.next_links._users.values())


@pytest.mark.parametrize("how", ["close", "leave"])
async def test_a_client_that_does_not_wait_for_the_next_peer_leaves_nothing(
    spans: tuple[Span, ...], tiny: Checkpoint, how: str
) -> None:
    mute = await asyncio.start_server(lambda *_: hang(None), "127.0.0.1", 0)  # type: ignore[arg-type]
    hop = NOBODY.model_copy(update={"address": f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"})
    async with lone_peer(spans[0], tiny) as (peer, link):
        await link.send(opening(tiny.fingerprint, 0, MIDDLE, next=hop))
        await eventually(lambda: peer.budget.free_tokens < peer.budget.total_tokens)
        await (link.send(Close(session=session_id())) if how == "close" else link.close())
        await eventually(lambda: peer.idle)
        assert not peer.handler.sessions
    mute.close()


async def test_openings_of_one_link_are_bounded(
    spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "MAX_OPENING_PER_LINK", 1)
    mute = await asyncio.start_server(lambda *_: hang(None), "127.0.0.1", 0)  # type: ignore[arg-type]
    hop = NOBODY.model_copy(update={"address": f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"})
    async with lone_peer(spans[0], tiny) as (_, link):
        await link.send(opening(tiny.fingerprint, 0, MIDDLE, next=hop))
        assert await told_to_come_back(
            link, opening(tiny.fingerprint, 0, MIDDLE, session=session_id(2))
        )
    mute.close()


async def test_a_client_that_does_not_read_holds_up_nobody_who_shares_a_link_with_it(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    """Frames of two clients come over one link of the peer before; faults for one must not delay
    the other."""
    before = somebody()
    async with (
        Peer(spans[1], tiny.fingerprint) as peer,
        dialed(peer.server) as deaf,
        dialed(peer.server) as good,
        dialed(peer.server, me=before) as upstream,
    ):
        for link, number in ((deaf, 1), (good, 2)):
            message = opening(
                tiny.fingerprint,
                MIDDLE,
                LAYERS,
                session=session_id(number),
                previous=before.peer_id,
            )
            await ask(link, message)
        stuck = peer.handler.sessions[session_id(1)].outlet.opener
        stuck.send = lambda _: asyncio.Event().wait()  # type: ignore[method-assign, assignment, return-value]
        # Of another width: a fault that is found while the shared link is read.
        await upstream.send(hidden_frame(1, torch.zeros(1, HIDDEN + 1), session=session_id(1)))
        await upstream.send(hidden_frame(1, torch.zeros(1, HIDDEN), session=session_id(2)))
        assert isinstance(await soon(good.receive()), Result)


# What must not reach the computation.


@asynccontextmanager
async def watched(span: Span, tiny: Checkpoint) -> AsyncIterator[tuple[WatchedSpan, Peer, Link]]:
    """A peer in the middle of a chain, which is seen computing, and the link of the peer before
    it."""
    seen, previous = WatchedSpan(span), somebody()
    async with lone_peer(seen, tiny) as (peer, link), dialed(peer.server, me=previous) as before:  # type: ignore[arg-type]
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=previous.peer_id)
        assert isinstance(await ask(link, message), Opened)
        yield seen, peer, before


def spoilt(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    hidden = torch.zeros(3, HIDDEN, dtype=dtype)
    hidden[1, 5] = value
    return hidden


@pytest.mark.threat("wrong-tensor")
@pytest.mark.parametrize("defended", [True, False])
async def test_hidden_states_of_another_width_are_not_computed(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(sessions.PeerSession, "_check", lambda *_: None)
    async with lone_peer(WatchedSpan(spans[1]), tiny) as (peer, link):  # type: ignore[arg-type]
        assert isinstance(await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS)), Opened)
        fault = await ask(link, hidden_frame(1, torch.zeros(3, HIDDEN + 1)))
        assert isinstance(fault, Fault)
        assert fault.code == (FaultCode.BAD_MESSAGE if defended else FaultCode.INTERNAL)
        assert bool(peer.span.batches) != defended  # type: ignore[attr-defined]


@pytest.mark.threat("not-finite")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_what_is_no_number_is_not_computed(
    value: float,
    defended: bool,
    spans: tuple[Span, ...],
    tiny: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not defended:
        monkeypatch.setattr(sessions, "_fits", lambda *_: True)
    async with watched(spans[1], tiny) as (seen, _, before):
        await before.send(hidden_frame(1, spoilt(value)))
        await before.send(Ping(nonce=1))
        assert await soon(before.receive()) == Pong(nonce=1)
        if not defended:
            await eventually(lambda: bool(seen.batches))
        assert bool(seen.batches) != defended


@pytest.mark.threat("not-finite")
async def test_the_session_outlives_a_peer_that_sends_what_is_no_number(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    previous = somebody()
    async with (
        lone_peer(spans[1], tiny) as (peer, link),
        dialed(peer.server, me=previous) as before,
    ):
        message = opening(tiny.fingerprint, MIDDLE, LAYERS, previous=previous.peer_id)
        assert isinstance(await ask(link, message), Opened)
        await before.send(hidden_frame(1, spoilt(float("nan"))))
        await before.send(hidden_frame(4, torch.zeros(1, HIDDEN)))  # what follows it has no place
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.NOT_FINITE, session_id())
        assert isinstance(await ask(link, hidden_frame(1, torch.zeros(1, HIDDEN), epoch=1)), Result)
        assert peer.handler.admission.refusals == {"not_finite": 1}


async def test_what_is_too_large_for_the_dtype_that_computes_is_refused(tiny: Checkpoint) -> None:
    narrow = Span.load(tiny, MIDDLE, LAYERS, dtype=torch.float16)
    async with lone_peer(narrow, tiny) as (_, link):
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        assert isinstance(await ask(link, hidden_frame(1, spoilt(6e4))), Result)
        fault = await ask(link, hidden_frame(4, spoilt(1e6)))
        assert isinstance(fault, Fault)
        assert fault.code == FaultCode.NOT_FINITE


@pytest.mark.threat("not-finite")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_peer_does_not_pass_on_what_it_failed_to_compute(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(outlets, "_packed", WireTensor.pack)
    seen = WatchedSpan(spans[1])
    monkeypatch.setattr(
        seen,
        "forward",
        lambda batch, *_: [torch.full((3, HIDDEN), torch.nan) for _ in batch],
        False,
    )
    async with lone_peer(seen, tiny) as (_, link):  # type: ignore[arg-type]
        await ask(link, opening(tiny.fingerprint, MIDDLE, LAYERS))
        answer = await ask(link, hidden_frame(1, torch.zeros(3, HIDDEN)))
        if defended:
            assert isinstance(answer, Fault)
            assert answer.code == FaultCode.INTERNAL
        else:
            assert isinstance(answer, Result)
            assert answer.hidden.unpack().isnan().all()


@pytest.mark.threat("out-of-order")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_frame_that_continues_nothing_ends_its_session_alone(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:  # whatever its serial says, it is placed behind what is held
        admit = TokenTree.admit

        def anywhere(stream: TokenTree, epoch: int, root: int, first: int, *others: Any) -> Any:
            return admit(stream, epoch, root, stream.last + 1, *others)

        monkeypatch.setattr(TokenTree, "admit", anywhere)
    async with lone_peer(spans[2], tiny) as (peer, link), dialed(peer.server) as neighbour:
        await ask(link, opening(tiny.fingerprint, 0, LAYERS))
        await ask(neighbour, opening(tiny.fingerprint, 0, LAYERS, session=session_id(2)))
        await ask(link, tokens_frame(1, (3, 4)))
        answer = await ask(link, tokens_frame(9, (5,)))
        assert isinstance(answer, Fault) == defended
        if isinstance(answer, Fault):
            assert answer.code == FaultCode.OUT_OF_ORDER
            assert peer.handler.admission.refusals == {"out_of_order": 1}
        assert isinstance(
            await ask(neighbour, tokens_frame(1, (3,), session=session_id(2))), Result
        )


@pytest.mark.threat("endless-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_session_never_ends(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    """Its client says something now and then."""
    now_s = 0.0
    lifetime_s = 10.0 if defended else 1e9
    async with lone_peer(spans[0], tiny, clock=lambda: now_s, lifetime_s=lifetime_s) as (
        peer,
        link,
    ):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
        assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)
        now_s = 11.0
        answer = await ask(link, tokens_frame(2, (3,)))
        assert isinstance(answer, Fault) == defended
        if isinstance(answer, Fault):
            assert answer.code == FaultCode.BUSY
            assert peer.idle


@pytest.mark.threat("endless-session")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_silent_session_is_kept_for_ever(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    idle_timeout_s = 0.05 if defended else 1e9
    async with lone_peer(spans[0], tiny, idle_timeout_s=idle_timeout_s) as (peer, link):
        await ask(link, opening(tiny.fingerprint, 0, MIDDLE))
        if defended:
            fault = await soon(link.receive())
            assert isinstance(fault, Fault)
            assert fault.code == FaultCode.NO_SESSION
            assert peer.idle
        else:
            assert isinstance(await ask(link, tokens_frame(1, (3,))), Result)


@pytest.mark.threat("slow-reader")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_client_that_never_reads_is_cut_off(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results pile up in the kernel, and then its session computes no more."""
    monkeypatch.setattr(links, "SEND_TIMEOUT_S", 0.2 if defended else 1e6)
    seen = WatchedSpan(spans[2])
    async with Peer(seen, tiny.fingerprint, 1 << 16, 1 << 16) as peer:  # type: ignore[arg-type]
        async with dialed(peer.server) as link, dialed(peer.server) as neighbour:
            await ask(link, opening(tiny.fingerprint, 0, LAYERS, max_tokens=1 << 15))
            link._transport.pause_reading()  # type: ignore[attr-defined]
            ours = next(
                each
                for each in peer.server.links
                if each in {s.outlet.opener for s in _sessions(peer)}
            )
            for end_of_it, size in ((ours, socket.SO_SNDBUF), (link, socket.SO_RCVBUF)):
                end_of_it._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, size, 1 << 14
                )
            for number in range(60):
                if ours.closed:
                    break
                first = 1 + 250 * number
                frame = tokens_frame(first, (3,) * 250, parents=(first, *(1,) * 249), epoch=number)
                with contextlib.suppress(LinkClosed):
                    await link.send(frame)
                await asyncio.sleep(0.02)
            if defended:
                await eventually(lambda: ours.closed)
            assert ours.closed == defended
            assert len(seen.batches) < 60, "nothing is computed for whom nothing reaches"
            assert await ask(neighbour, Ping(nonce=1)) == Pong(nonce=1)
            link._transport.abort()
        await eventually(lambda: peer.idle)


def _sessions(peer: Peer) -> list[sessions.PeerSession]:
    return list(peer.handler.sessions.values())
