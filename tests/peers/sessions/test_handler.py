"""Peers on loopback: real links, a real span of a tiny Llama, and clients that behave well."""

import asyncio
import threading
from typing import Any

import pytest
import torch

from helpers.lone_peer import (
    HIDDEN,
    MIDDLE,
    close_to,
    expected,
    lone_peer,
    open_both,
)
from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    hidden_frame,
    new_member,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from peers.compute.scheduler import MAX_DECODE_TOKENS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.link import LinkClosed
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Cancel,
    Close,
    Fault,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Result,
)


async def test_frames_are_answered_with_what_the_span_computes(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    whole = spans[2]
    async with lone_peer(whole, tiny) as (peer, link):
        assert await ask(link, opening(tiny.fingerprint, 0, LAYERS)) == Opened(
            session=session_id(), taps=True, forks=True
        )
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
            session=session_id(), branches=False, taps=True, forks=True
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


async def test_a_draining_peer_still_answers_pings(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    async with lone_peer(spans[0], tiny) as (peer, _):
        peer.handler.sessions.draining = True
        async with dialed(peer.server) as another:
            assert await ask(another, Ping(nonce=1)) == Pong(nonce=1)


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


async def test_a_client_that_does_not_read_holds_up_nobody_who_shares_a_link_with_it(
    spans: tuple[Span, ...], tiny: Checkpoint
) -> None:
    """Frames of two clients come over one link of the peer before; faults for one must not delay
    the other."""
    before = new_member()
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
        stuck = peer.handler.sessions[session_id(1)].downstream.opener
        stuck.send = lambda _: asyncio.Event().wait()  # type: ignore[method-assign, assignment, return-value]
        # Of another width: a fault that is found while the shared link is read.
        await upstream.send(hidden_frame(1, torch.zeros(1, HIDDEN + 1), session=session_id(1)))
        await upstream.send(hidden_frame(1, torch.zeros(1, HIDDEN), session=session_id(2)))
        assert isinstance(await soon(good.receive()), Result)


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
