"""One session, with real links to the client before it and the peer after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import torch
from architectures import LAYERS
from support import Server, dialed, eventually, opening, soon, tokens_frame

from peers import session as sessions
from peers.cache import KVCache
from peers.scheduler import Scheduler
from peers.session import PeerSession, SessionFault
from peers.span import Span, Work
from swarm.model.checkpoint import Checkpoint
from swarm.network.link import Link
from swarm.network.tasks import end
from swarm.wire.messages import Fault, FaultCode, Frame, Hop, Message, Result


@dataclass
class Other:
    """The other end of a link: keeps what it hears."""

    heard: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)

    async def listen(self, link: Link) -> None:
        async for message in link:
            self.heard.put_nowait(message)

    async def next(self) -> Message:
        message: Message = await soon(self.heard.get())
        return message


@dataclass
class Stage:
    """A session between a client and, perhaps, a next peer."""

    session: PeerSession
    client: Other
    following: Other
    to_client: Link
    onward: Link | None
    faults: list[SessionFault]


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@asynccontextmanager
async def stage(span: Span, *, last: bool = True, max_tokens: int = 32) -> AsyncIterator[Stage]:
    client, following, faults = Other(), Other(), []
    scheduler = Scheduler(span)
    computing = asyncio.create_task(scheduler.run())
    async with (
        Server(client.listen) as at_client,
        Server(following.listen) as at_next,
        dialed(at_client) as to_client,
        dialed(at_next) as to_next,
    ):
        hop = None if last else at_next.hop
        onward = None if last else to_next
        session = PeerSession(
            opening("0" * 32, 0, LAYERS, max_tokens=max_tokens, next=hop),
            to_client,
            onward,
            span.new_cache(),
            scheduler,
            lambda _, fault: faults.append(fault),
        )
        yield Stage(session, client, following, to_client, onward, faults)
        await session.close()
        await session.close()
    await end(computing)


async def test_the_last_peer_answers_the_client(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(0, (3, 4, 5), tail=2))
        result = await each.client.next()
        assert isinstance(result, Result)
        assert (result.start, result.count, result.hidden.tokens, len(result.compute_ms)) == (0, 3, 2, 1)
        assert not each.faults


async def test_another_peer_sends_on_what_it_computed(span: Span) -> None:
    async with stage(span, last=False) as each:
        each.session.accept(tokens_frame(0, (3, 4), tail=1))
        frame = await each.following.next()
        assert isinstance(frame, Frame)
        assert (frame.tokens, frame.count, frame.tail, len(frame.compute_ms)) == (None, 2, 1, 1)
        assert each.client.heard.empty()


async def test_frames_wait_in_order_and_stale_ones_die(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(0, (3,), epoch=0))
        each.session.accept(tokens_frame(1, (4,), epoch=0))
        each.session.accept(tokens_frame(1, (5,), epoch=1))
        each.session.accept(tokens_frame(2, (6,), epoch=0))
        each.session.accept(tokens_frame(2, (7,), epoch=1))
        answers = [await each.client.next() for _ in range(4)]
        assert [(a.epoch, a.start) for a in answers if isinstance(a, Result)] == [(0, 0), (0, 1), (1, 1), (1, 2)]
        assert each.session._waiting_tokens == 0


async def test_a_cancel_reaches_frames_that_wait(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(0, (3,), epoch=0))
        each.session.cancel(3)
        each.session.accept(tokens_frame(0, (3,), epoch=3))
        result = await each.client.next()
        assert isinstance(result, Result)
        assert result.epoch == 3


async def test_frames_that_do_not_belong_are_not_taken(span: Span) -> None:
    async with stage(span, max_tokens=4) as each:
        with pytest.raises(SessionFault, match="opened for 4 tokens"):
            each.session.accept(tokens_frame(3, (3, 4)))
        with pytest.raises(SessionFault, match="must be below"):
            each.session.accept(tokens_frame(0, (span.vocab_size,)))
        assert each.session._waiting_tokens == 0


async def test_what_may_wait_grows_with_the_session_and_is_bounded(span: Span, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_STALE_TOKENS", 5)
    async with stage(span, max_tokens=10) as each:
        for epoch in range(3):
            each.session.accept(tokens_frame(0, (3,) * 5, epoch=epoch))
        with pytest.raises(SessionFault, match="15 positions are waiting already"):
            each.session.accept(tokens_frame(0, (3,), epoch=3))
        for _ in range(3):
            assert isinstance(await each.client.next(), Result)
        each.session.accept(tokens_frame(0, (3,) * 5, epoch=3))


async def test_a_gap_is_the_senders_fault(span: Span) -> None:
    async with stage(span) as each:
        each.session.accept(tokens_frame(4, (3,)))
        await eventually(lambda: bool(each.faults))
        assert each.faults[0].code == FaultCode.OUT_OF_ORDER


async def test_a_failing_computation_is_our_own_fault(span: Span, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(span) as each:

        def fail(*_: object) -> list[object]:
            raise ZeroDivisionError

        monkeypatch.setattr(span, "forward", fail)
        each.session.accept(tokens_frame(0, (3,)))
        await eventually(lambda: bool(each.faults))
        assert each.faults[0].code == FaultCode.INTERNAL
        assert "ZeroDivisionError" in each.faults[0].text


async def test_a_client_that_is_gone_ends_the_session(span: Span) -> None:
    async with stage(span) as each:
        each.to_client._transport.abort()
        await each.to_client.close()
        each.session.accept(tokens_frame(0, (3,)))
        await eventually(lambda: bool(each.faults))
        assert each.faults[0].code == FaultCode.NO_SESSION
        await soon(each.session.tell(each.faults[0]))  # nobody hears it, nothing happens


async def test_a_next_peer_that_is_gone_is_named(span: Span) -> None:
    async with stage(span, last=False) as each:
        assert each.onward is not None
        await each.onward.close()
        each.session.accept(tokens_frame(0, (3,)))
        await eventually(lambda: bool(each.faults))
        fault = each.faults[0]
        assert isinstance(each.session.hop, Hop)
        assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, each.session.hop.peer_id)
        await each.session.tell(fault)
        told = await each.client.next()
        assert isinstance(told, Fault)
        assert told.peer == fault.peer


async def test_closing_in_the_middle_of_a_computation_does_not_wait_for_it(span: Span) -> None:
    async with stage(span, max_tokens=64) as each:
        for start in range(0, 60, 20):
            each.session.accept(tokens_frame(start, (3,) * 20))
        await asyncio.sleep(0)
        await soon(each.session.close())
        assert each.session._task.done()
        assert not each.faults
        cache = span.new_cache()  # the thread goes on unharmed
        assert (await soon(each.session._scheduler.compute(_one(cache), (0, LAYERS)))).output.shape[0] == 1


def _one(cache: KVCache) -> Work:
    return Work(cache, 0, torch.tensor([3]))
