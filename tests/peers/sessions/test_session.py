"""One session, with real links to the client before it and the peer after it."""

import asyncio
from typing import Any

import pytest
import torch

from helpers.lone_peer import HIDDEN, MIDDLE, lone_peer
from helpers.loopback import (
    WatchedSpan,
    ask,
    dialed,
    eventually,
    hidden_frame,
    opening,
    session_id,
    soon,
    tokens_frame,
)
from helpers.models import LAYERS
from helpers.session_bench import MAX_POSITIONS, Neighbour, stage
from peers.faults import SessionFault
from peers.sessions import downstream
from peers.sessions.inbox import MAX_LOST_TOKENS
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Frame, Result
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import TokenTree

HELD_MS = 500.0  # far longer than a tiny span computes for on a busy machine


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


async def test_the_last_peer_answers_the_client(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(1, (3, 4, 5), tail=2))
        result = await each.client.result()
        assert (result.first, result.count, result.hidden.tokens) == (1, 3, 2)
        assert len(result.compute_ms) == len(result.queue_ms) == 1
        assert not each.faults


async def test_another_peer_sends_on_what_it_computed(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4, 5), tail=1, parents=(1, 1, 2)))
        frame = await each.following.next()
        assert isinstance(frame, Frame)
        assert (frame.tokens, frame.count, frame.tail, frame.parents) == (None, 3, 1, (1, 1, 2))
        assert len(frame.compute_ms) == len(frame.queue_ms) == 1
        assert each.client.heard.empty()


async def test_what_has_come_until_its_turn_is_computed_and_answered_as_one(span: Span) -> None:
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.waits_for_its_turn()
        each.session.accept(tokens_frame(3, (5,), root=1))
        each.session.accept(tokens_frame(4, (6,), root=2))
        each.span.go_on.set()
        result = await each.client.result()
        assert (result.first, result.count, result.hidden.tokens) == (1, 4, 4)
        expected = span.forward([Work.behind(span.new_cache(), torch.tensor([3, 4, 5, 6]))])[0]
        torch.testing.assert_close(result.hidden.unpack(), expected, rtol=1e-4, atol=1e-4)
        assert each.span.sizes == [1, 1]
        await soon(busy)


async def test_a_prompts_chunks_are_computed_one_by_one(span: Span) -> None:
    async with stage(span) as each:
        for first in (1, 6, 11):
            each.session.accept(tokens_frame(first, (3,) * 5, tail=0))
        each.session.accept(tokens_frame(16, (3,)))
        assert [((r := await each.client.result()).first, r.count) for _ in range(4)] == [
            (1, 5),
            (6, 5),
            (11, 5),
            (16, 1),
        ]


async def test_joining_frames_never_breaks_a_limit_that_they_keep_one_by_one(span: Span) -> None:
    """The second one's root makes room for it, by pruning what lost."""
    async with stage(span, max_tokens=6) as each:
        each.session.accept(tokens_frame(1, (3, 4, 5, 6), parents=(1, 1, 2, 2)))
        each.session.accept(tokens_frame(5, (7, 8, 9), root=2))
        assert [(await each.client.result()).count for _ in range(2)] == [4, 3]
        assert not each.faults


async def test_a_newer_epoch_makes_what_waits_stale_at_once(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.client.result()
        busy = await each.busy()
        each.session.accept(tokens_frame(3, (5, 6, 7), root=2))
        await each.waits_for_its_turn()
        each.session.accept(tokens_frame(6, (8,), root=1, parents=(5,), epoch=1))
        each.session.accept(tokens_frame(9, (9,), root=2))
        each.span.go_on.set()
        result = await each.client.result()
        assert (result.epoch, result.first, result.count) == (1, 6, 1)
        assert each.span.batches == [[2], [1], [1]]
        assert each.client.heard.empty()
        await soon(busy)


async def test_a_cancel_leaves_nothing_of_what_waits(span: Span) -> None:
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(tokens_frame(1, (3,)))
        await each.waits_for_its_turn()
        each.session.cancel(3)
        each.span.go_on.set()
        await soon(busy)
        await eventually(lambda: not each.scheduler._waiting)
        each.session.accept(tokens_frame(2, (3,), parents=(2,), epoch=3))
        assert (await each.client.result()).epoch == 3
        assert each.span.sizes == [1, 1]


async def test_what_became_stale_while_it_was_computed_is_not_passed_on(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.span.go_on.clear()
        each.session.accept(tokens_frame(1, (3, 4)))
        await eventually(each.span.entered.is_set)
        each.session.cancel(1)
        each.span.go_on.set()
        each.session.accept(tokens_frame(3, (5,), parents=(3,), epoch=1))
        frame = await each.following.next()
        assert isinstance(frame, Frame)
        assert frame.epoch == 1
        assert each.span.sizes == [1, 1]


async def test_waiting_for_others_is_told_and_waiting_for_oneself_is_not(span: Span) -> None:
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(tokens_frame(1, (3,), tail=0))
        await each.waits_for_its_turn()
        await asyncio.sleep(HELD_MS / 1e3)
        each.span.go_on.set()
        assert (await each.client.result()).queue_ms[0] >= HELD_MS
        await soon(busy)
        each.span.entered.clear()
        each.span.go_on.clear()
        each.session.accept(tokens_frame(2, (3,), tail=0))
        await eventually(each.span.entered.is_set)
        each.session.accept(tokens_frame(3, (3,), tail=0))
        await asyncio.sleep(HELD_MS / 1e3)
        each.span.go_on.set()
        for _ in range(2):
            assert (await each.client.result()).queue_ms[0] < HELD_MS


async def test_frames_that_do_not_belong_are_not_taken(span: Span) -> None:
    async with stage(span) as each:
        with pytest.raises(SessionFault, match="must be below"):
            each.session.accept(tokens_frame(1, (span.vocab_size,)))
        with pytest.raises(SessionFault, match="64 peers at most"):
            each.session.accept(tokens_frame(1, (3,), queue_ms=(0.0,) * 64))
        assert not each.session.tokens


@pytest.mark.parametrize(
    ("frames", "max_tokens", "why"),
    [
        ([tokens_frame(1, (3,) * 5)], 4, "opened for 4 tokens, and this makes 5"),
        ([tokens_frame(1, (3, 4, 5), parents=(1, 2, 3))], 2, "makes 3, losing branches included"),
        (
            [tokens_frame(1, (3,) * MAX_POSITIONS), tokens_frame(41, (4,), root=40)],
            64,
            "context ends at 40 tokens",
        ),
    ],
)
async def test_more_than_there_is_room_for_is_the_clients_fault(
    span: Span, frames: list[Frame], max_tokens: int, why: str
) -> None:
    async with stage(span, max_tokens=max_tokens) as each:
        for frame in frames:
            each.session.accept(frame)
        fault = await each.fault()
        assert fault.code == FaultCode.BAD_MESSAGE
        assert why in fault.text


async def test_losing_branches_take_room_and_no_positions(span: Span) -> None:
    async with stage(span, max_tokens=MAX_POSITIONS + 2) as each:
        each.session.accept(tokens_frame(1, (3,) * (MAX_POSITIONS - 1), tail=0))
        each.session.accept(
            tokens_frame(MAX_POSITIONS, (3, 4, 5), root=MAX_POSITIONS - 1, parents=(1, 2, 3))
        )
        assert [(await each.client.result()).count for _ in range(2)] == [MAX_POSITIONS - 1, 3]


async def test_branches_are_refused_where_the_model_takes_none(
    span: Span, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Span, "branches", False)
    async with stage(span) as each:
        each.session.accept(tokens_frame(1, (3, 4), parents=(1, 1)))
        assert (await each.client.result()).count == 2
        each.session.accept(tokens_frame(3, (5, 6), parents=(1, 2)))
        fault = await each.fault()
        assert (fault.code, "takes no branches" in fault.text) == (FaultCode.BAD_MESSAGE, True)


async def test_a_client_that_does_not_wait_for_answers_is_cut_off(span: Span) -> None:
    async with stage(span, max_tokens=10) as each:
        each.span.go_on.clear()
        for first in range(1, 11 + MAX_LOST_TOKENS):
            each.session.accept(tokens_frame(first, (3,), tail=0))
        with pytest.raises(SessionFault, match="266 tokens wait already") as caught:
            each.session.accept(tokens_frame(11 + MAX_LOST_TOKENS, (3,), tail=0))
        assert caught.value.code == FaultCode.BAD_MESSAGE


async def test_a_gap_is_the_senders_fault(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(4, (3,)))
        assert (await each.fault()).code == FaultCode.OUT_OF_ORDER


async def test_a_failing_computation_is_our_own_fault(
    span: Span, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(span) as each:

        def fail(*_: object) -> list[object]:
            raise ZeroDivisionError

        monkeypatch.setattr(span, "forward", fail)
        each.session.accept(tokens_frame(1, (3,)))
        fault = await each.fault()
        assert fault.code == FaultCode.INTERNAL
        assert "ZeroDivisionError" in fault.text


async def test_silence_ends_the_session_but_not_while_it_computes(span: Span) -> None:
    async with stage(span, idle_timeout_s=0.05) as each:
        each.span.go_on.clear()
        each.session.accept(tokens_frame(1, (3,)))
        await asyncio.sleep(0.1)
        assert not each.faults
        each.span.go_on.set()
        assert (await each.client.result()).count == 1
        assert (await each.fault()).code == FaultCode.NO_SESSION


async def test_a_client_that_is_gone_ends_the_session(span: Span) -> None:
    async with stage(span) as each:
        each.to_client._transport.abort()
        await each.to_client.close()
        each.session.accept(tokens_frame(1, (3,)))
        assert (await each.fault()).code == FaultCode.NO_SESSION
        await soon(each.session.downstream.tell(each.faults[0]))  # nobody hears it, nothing happens


async def test_closing_in_the_middle_of_a_computation_does_not_wait_for_it(span: Span) -> None:
    async with stage(span, max_tokens=64) as each:
        each.span.go_on.clear()
        each.session.accept(tokens_frame(1, (3,) * 20))
        await eventually(each.span.entered.is_set)
        await soon(each.session.close())
        assert each.session._task.done()
        assert not each.faults
        each.span.go_on.set()
        # the thread goes on unharmed
        after: Any = await soon(each.scheduler.compute(Neighbour(span)))
        assert after.output.shape[0] == 1


@pytest.mark.threat("not-finite")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_peer_does_not_pass_on_what_it_failed_to_compute(
    defended: bool, spans: tuple[Span, ...], tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(downstream, "_packed", WireTensor.pack)
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
