"""A session whose next peer is replaced, and one that takes the place of another peer."""

import asyncio
from typing import Any

import pytest
import torch

from helpers.loopback import Server, eventually, session_id, soon, tokens_frame
from helpers.models import LAYERS
from helpers.session_bench import Other, stage, stick
from peers.faults import SessionFault
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Frame, Hop, Progress, Rerouted


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


# Another next peer.


async def test_a_next_peer_that_is_gone_is_named_and_the_session_waits_for_another_one(
    span: Span,
) -> None:
    async with stage(span, last=False) as each:
        assert each.next_link is not None
        each.session.accept(tokens_frame(1, (3, 4)))
        first = await each.following.frame()
        await each.next_link.close()
        each.session.accept(tokens_frame(3, (5,), root=2))
        told = await each.client.next()
        assert isinstance(told, Fault)
        assert isinstance(each.session.opening.next, Hop)
        assert (told.code, told.peer) == (
            FaultCode.NEXT_UNREACHABLE,
            each.session.opening.next.peer_id,
        )
        each.session.accept(tokens_frame(4, (6,), root=2))
        await asyncio.sleep(0.05)
        assert each.span.sizes == [1, 1], "nothing is computed that nobody could be given"

        each.reroute(1, 2)
        again = await each.other.frame()
        assert (again.epoch, again.first, again.replay, again.hidden) == (1, 1, 0, first.hidden)
        assert await each.client.next() == Rerouted(session=session_id(), epoch=1)
        each.session.accept(tokens_frame(9, (5, 6), root=2, parents=(7, 1), epoch=1))
        after = await each.other.frame()
        assert (after.first, after.count, after.replay) == (9, 2, None)
        expected = span.forward([Work.behind(span.new_cache(), torch.tensor([3, 4, 5, 6]))])[0]
        assert after.hidden is not None
        torch.testing.assert_close(after.hidden.unpack(), expected[2:], rtol=1e-4, atol=1e-4)
        assert not each.faults


async def test_a_reroute_goes_back_to_what_was_answered_in_the_cache_too(span: Span) -> None:
    """Branches were in flight, and the answered line is not the first of them."""
    async with stage(span, last=False) as each:
        # 3, and behind it 4, or 5 and 6
        each.session.accept(tokens_frame(1, (3, 4, 5, 6), parents=(1, 1, 2, 1)))
        await each.following.frame()
        each.session.accept(tokens_frame(5, (7, 8), root=3, parents=(1, 2)))
        await each.following.frame()
        each.reroute(2, 4)
        again = await each.other.frame()
        expected = span.forward([Work.behind(span.new_cache(), torch.tensor([3, 5, 6]))])[0]
        assert again.hidden is not None
        torch.testing.assert_close(again.hidden.unpack(), expected, rtol=1e-4, atol=1e-4)
        assert (each.session.tree.length, each.session._cache.length) == (3, 3)


async def test_a_reroute_waits_for_what_is_being_computed_and_drops_it(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        each.span.entered.clear()
        each.span.go_on.clear()
        each.session.accept(tokens_frame(3, (5,), root=2))
        await eventually(each.span.entered.is_set)
        each.reroute(1, 2)
        each.span.go_on.set()
        assert (await each.other.frame()).count == 2
        assert await each.client.next() == Rerouted(session=session_id(), epoch=1)
        assert each.following.heard.empty()


async def test_what_became_stale_while_it_was_computed_has_moved_rows_all_the_same(
    span: Span,
) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4, 5, 6), parents=(1, 1, 2, 1)))
        await each.following.frame()
        each.span.entered.clear()
        each.span.go_on.clear()
        each.session.accept(tokens_frame(5, (7,), root=4))
        await eventually(each.span.entered.is_set)
        each.reroute(1, 4)
        each.span.go_on.set()
        again = await each.other.frame()
        expected = span.forward([Work.behind(span.new_cache(), torch.tensor([3, 5, 6]))])[0]
        assert again.hidden is not None
        torch.testing.assert_close(again.hidden.unpack(), expected, rtol=1e-4, atol=1e-4)


async def test_before_the_first_answer_there_is_nothing_to_replay(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        each.reroute(1, 0)
        assert await each.client.next() == Rerouted(session=session_id(), epoch=1)
        each.session.accept(tokens_frame(3, (3, 4, 5), parents=(3, 1, 1), epoch=1))
        frame = await each.other.frame()
        assert (frame.first, frame.count, frame.replay) == (3, 3, None)
        assert each.session.tree.length == 3


async def test_a_newer_reroute_interrupts_the_one_that_is_under_way(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        async with Server(Other().listen) as hanging:
            link = await each.links.to(hanging.hop)
            entered = stick(link)
            each.reroute(1, 2, hanging.hop)
            await soon(entered.wait())
            each.reroute(2, 2)
            assert (await each.other.frame()).epoch == 2
            assert await each.client.next() == Rerouted(session=session_id(), epoch=2)
            each.links.release(link)
        assert not each.faults


@pytest.mark.parametrize("stuck", ["dialling", "replaying"])
async def test_closing_in_the_middle_of_a_reroute_leaves_nothing(span: Span, stuck: str) -> None:
    async def hang(*_: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    entered = asyncio.Event()
    mute = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        hop, link = each.other_hop, await each.links.to(each.other_hop)
        if stuck == "dialling":
            hop = hop.model_copy(
                update={"address": f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"}
            )
        link.send = hang  # type: ignore[assignment]
        each.reroute(1, 2, hop)
        await soon(entered.wait())
        await soon(each.session.close())
        each.links.release(link)
        assert each.session._task.done()
        assert not each.faults
    mute.close()


async def test_of_many_reroutes_the_last_one_counts(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4)))
        await each.following.frame()
        each.span.entered.clear()
        each.span.go_on.clear()
        each.session.accept(tokens_frame(3, (5,), root=2))
        await eventually(each.span.entered.is_set)
        for epoch in range(1, 1000):
            each.reroute(epoch, 2)
        each.span.go_on.set()
        assert await each.client.next() == Rerouted(session=session_id(), epoch=999)
        assert (await each.other.frame()).epoch == 999
        assert each.other.heard.empty()


@pytest.mark.parametrize(
    ("last", "kept", "epoch", "code"),
    [
        (True, False, 1, FaultCode.BAD_MESSAGE),
        (False, False, 1, FaultCode.NO_HISTORY),
        (False, True, 0, FaultCode.BAD_MESSAGE),
        (False, True, 2, FaultCode.BAD_MESSAGE),
    ],
    ids=["nobody follows", "nothing is kept", "not newer", "cancelled"],
)
async def test_a_reroute_that_cannot_be_is_refused(
    span: Span, last: bool, kept: bool, epoch: int, code: FaultCode
) -> None:
    async with stage(span, last=last, kept=kept) as each:
        each.session.accept(tokens_frame(1, (3,)))
        await (each.client if last else each.following).next()
        each.session.cancel(3 if epoch == 2 else 0)
        with pytest.raises(SessionFault) as caught:
            each.reroute(epoch, 1)
        assert caught.value.code == code


async def test_reroutes_are_bounded_in_number(span: Span) -> None:
    async with stage(span, last=False, max_reroutes=2) as each:
        for epoch in (1, 2):
            each.reroute(epoch, 0)
            assert await each.client.next() == Rerouted(session=session_id(), epoch=epoch)
        each.reroute(3, 0)
        assert (await each.fault()).code == FaultCode.NO_HISTORY


async def test_a_reroute_to_what_was_forgotten_is_the_clients_fault(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(1, (3, 4, 5), parents=(1, 1, 2)))
        await each.following.frame()
        each.session.accept(tokens_frame(4, (6,), root=3))
        await each.following.frame()
        each.reroute(1, 2)
        fault = await each.fault()
        assert (fault.code, "number 2, is not held" in fault.text) == (FaultCode.OUT_OF_ORDER, True)


async def test_a_client_that_names_no_other_peer_loses_the_session(span: Span) -> None:
    async with stage(span, last=False, reroute_patience_s=0.05) as each:
        assert each.next_link is not None
        assert each.session.lose(each.next_link, FaultCode.INTERNAL, "it hurts") is not None
        fault = await each.fault()
        assert (fault.code, fault.text) == (FaultCode.NO_SESSION, "nothing came for 0.05 s")


async def test_a_root_that_never_comes_is_not_waited_for_for_ever(span: Span) -> None:
    async with stage(span, last=False, reroute_patience_s=0.05) as each:
        each.reroute(1, 99)
        assert (await each.fault()).code == FaultCode.NO_SESSION


# In the place of another peer.


def replayed_frame(first: int, tokens: tuple[int, ...], **changes: Any) -> Frame:
    return tokens_frame(first, tokens, **{"tail": 0, "replay": 0, "epoch": 4} | changes)


async def test_what_is_replayed_is_computed_and_kept_and_answered_to_nobody(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(replayed_frame(8, (3, 4), parents=(8, 1)))
        each.session.accept(replayed_frame(10, (5,), root=9))
        each.session.accept(tokens_frame(15, (6,), root=10, parents=(5,), epoch=4))
        result = await each.client.result()
        assert (result.first, result.count) == (15, 1)
        expected = span.forward([Work.behind(span.new_cache(), torch.tensor([3, 4, 5, 6]))])[0]
        torch.testing.assert_close(result.hidden.unpack(), expected[3:], rtol=1e-4, atol=1e-4)
        assert each.session.progress() == Progress(
            session=session_id(), epoch=4, last=15, passed=15, batches=3
        )


async def test_a_newer_epoch_takes_back_nothing_of_what_is_replayed(span: Span) -> None:
    """The text may take another turn, or another peer may fail, before a new peer has computed what
    it is given."""
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(replayed_frame(8, (3, 4), parents=(8, 1)))
        await each.waits_for_its_turn()
        each.session.accept(tokens_frame(11, (9,), root=9, parents=(2,), epoch=4))
        each.session.accept(tokens_frame(15, (6,), root=10, parents=(5,), epoch=6))
        each.session.accept(replayed_frame(10, (5,), root=9))  # late, whatever the way that it took
        each.span.go_on.set()
        result = await each.client.result()
        assert (result.epoch, result.first, result.count) == (6, 15, 1)
        assert each.session.tree.length == 4
        await soon(busy)


async def test_a_cancel_takes_back_what_is_replayed_too(span: Span) -> None:
    """A peer that is left and comes back is told everything anew; what was on its way to it is
    void."""
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(replayed_frame(8, (3, 4), parents=(8, 1)))
        await each.waits_for_its_turn()
        each.session.cancel(5)
        each.session.accept(replayed_frame(10, (5,), root=9))
        each.session.accept(replayed_frame(8, (3, 4, 5), parents=(8, 1, 1), epoch=5))
        each.session.accept(tokens_frame(15, (6,), root=10, parents=(5,), epoch=5))
        each.span.go_on.set()
        assert (await each.client.result()).first == 15
        assert each.session.tree.length == 4
        await soon(busy)


async def test_a_session_may_begin_with_a_later_epoch(span: Span) -> None:
    async with stage(span, epoch=5) as each:
        each.session.accept(tokens_frame(1, (9,), epoch=4))
        each.session.accept(replayed_frame(1, (9,), epoch=4))
        each.session.accept(tokens_frame(1, (3,), epoch=5))
        assert (await each.client.result()).epoch == 5
        assert each.span.batches == [[1]]


async def test_a_reroute_waits_until_what_it_is_about_has_come(span: Span) -> None:
    """A new peer loses the next one while it is still being given what it needs."""
    async with stage(span, last=False) as each:
        assert each.next_link is not None
        each.session.accept(replayed_frame(8, (3, 4), parents=(8, 1), replay=1))
        assert (await each.following.frame()).replay == 0
        assert each.session.lose(each.next_link, FaultCode.INTERNAL, "it hurts") is not None
        each.reroute(5, 10)
        each.session.accept(tokens_frame(12, (9,), root=10, parents=(2,), epoch=5))
        await asyncio.sleep(0.05)
        assert each.other.heard.empty()
        each.session.accept(replayed_frame(10, (5,), root=9, replay=1))
        again = await each.other.frame()
        assert (again.epoch, again.first, again.count, again.replay) == (5, 8, 3, 0)
        assert await each.client.next() == Rerouted(session=session_id(), epoch=5)
        assert (await each.other.frame()).first == 12
        assert each.following.heard.empty()
        assert not each.faults


async def test_more_than_is_reserved_cannot_be_replayed(span: Span) -> None:
    async with stage(span, max_tokens=4) as each:
        each.session.accept(replayed_frame(8, (3, 4, 5), parents=(8, 1, 1)))
        each.session.accept(replayed_frame(11, (6, 7), root=10))
        fault = await each.fault()
        assert (fault.code, "opened for 4 tokens" in fault.text) == (FaultCode.BAD_MESSAGE, True)


async def test_a_client_that_replays_as_it_likes_harms_only_itself(span: Span) -> None:
    """Older after newer, what is held already, and gaps."""
    async with stage(span) as each:
        busy = await each.busy()
        each.session.accept(replayed_frame(8, (3, 4), parents=(8, 1), epoch=6))
        each.session.accept(replayed_frame(1, (3, 4), epoch=5))  # stale: it is not looked at
        each.session.accept(tokens_frame(20, (5,), root=9, parents=(11,), epoch=6))
        each.span.go_on.set()
        assert (await each.client.result()).first == 20
        each.session.accept(replayed_frame(30, (6,), root=20, epoch=6))
        assert (await each.fault()).code == FaultCode.OUT_OF_ORDER
        await soon(busy)
