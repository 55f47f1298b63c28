"""One session on one peer: frames in, computed, passed on."""

import asyncio
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from peers.budget import Reservation
from peers.inbox import Inbox, Overfull
from peers.scheduler import Computed, Scheduler
from swarm.model.cache import KVCache
from swarm.model.span import Work
from swarm.network.link import Link, LinkClosed
from swarm.network.tasks import end
from swarm.wire.messages import MAX_HOPS, MAX_TEXT, Fault, FaultCode, Frame, Hop, Open, Result
from swarm.wire.stream import MAX_TAIL, OutOfOrder, Placement, Stream
from swarm.wire.tensors import WireTensor

IDLE_TIMEOUT_S = 300.0  # a session that says nothing for so long gives its cache back to others

log = logging.getLogger(__name__)


class SessionFault(Exception):
    """The session cannot go on; tells its client why."""

    def __init__(self, code: FaultCode, text: str, peer: str | None = None, retry_ms: float | None = None) -> None:
        super().__init__(code, text, peer, retry_ms)
        self.code, self.text, self.peer, self.retry_ms = code, text, peer, retry_ms

    def message(self, opening: Open) -> Fault:
        """As it is said to the client."""
        text = self.text[:MAX_TEXT]
        return Fault(code=self.code, text=text, session=opening.session, peer=self.peer, retry_ms=self.retry_ms)


class PeerSession:
    """Layers ``[first, last)`` for one client. To the scheduler it is a `Job`.

    Args:
        opening: the message that opened it.
        opener: the client's link; faults and, from the last peer of a chain, results go there.
        onward: the link to the next peer, or None at the end of the chain.
        reserved: its part of the cache budget, which whoever takes the session off the books gives back.
        max_positions: the model's context; None if the model sets no limit.
        failed: called once, by the session's own task, when the session cannot go on.
    """

    def __init__(
        self,
        opening: Open,
        opener: Link,
        onward: Link | None,
        reserved: Reservation,
        cache: KVCache,
        scheduler: Scheduler,
        max_positions: int | None,
        failed: Callable[["PeerSession", SessionFault], None],
    ) -> None:
        self.opening, self.opener, self.onward, self.reserved = opening, opener, onward, reserved
        self.stream = Stream()
        self._cache, self._scheduler, self._failed = cache, scheduler, failed
        self._max_positions = max_positions
        self._inbox = Inbox(opening.max_tokens)
        self._arrived = asyncio.Event()
        self._frame: Frame | None = None  # that is being computed and passed on
        self._task = asyncio.create_task(self._run())

    @property
    def hop(self) -> Hop | None:
        return self.opening.next

    @property
    def layers(self) -> tuple[int, int]:
        return self.opening.first, self.opening.last

    def accept(self, frame: Frame) -> None:
        """Put a frame in the inbox; never waits. Raises `SessionFault` if it does not belong here."""
        self._check(frame)
        if self.stream.stale(frame.epoch):
            return
        self.cancel(frame.epoch)
        try:
            self._inbox.put(frame)
        except Overfull as error:
            raise SessionFault(FaultCode.BAD_MESSAGE, str(error)) from None
        self._arrived.set()

    def cancel(self, epoch: int) -> None:
        """Let frames of older epochs die, wherever they are: in the inbox, in the scheduler, or before they leave."""
        self.stream.cancel(epoch)
        self._inbox.cancel(epoch)

    async def close(self) -> None:
        """Stop computing. May be called twice, but not by the session's own task."""
        await end(self._task)

    async def tell(self, fault: SessionFault) -> None:
        """Tell the client, if it is still there."""
        try:
            await self.opener.send(fault.message(self.opening))
        except LinkClosed:
            log.debug("the client of a failed session is gone")

    # What the scheduler asks for.

    @property
    def tokens(self) -> int:
        return self._inbox.next_tokens(self._room)

    def begin(self) -> Work:
        """Place the next frame in the stream. Raises `SessionFault` or `OutOfOrder` if it has no place there."""
        self._frame = frame = self._inbox.take(self._room)
        placement = self.stream.admit(frame.epoch, frame.root, frame.first, frame.count, frame.parents)
        assert placement is not None  # nothing that waits is stale
        self._check_place(placement, frame.count)
        return Work(self._cache, _inputs(frame), placement)

    @property
    def _room(self) -> int:
        """Tokens that certainly fit, whatever the frames forget: joining frames must never be what breaks a limit."""
        stream, rows = self.stream, self.opening.max_tokens
        return min(rows - stream.length, MAX_TAIL - (stream.length - stream.trunk))

    async def _run(self) -> None:
        try:
            while True:
                await self._arrival()
                computed = await self._scheduler.compute(self)
                if computed is not None:
                    await self._pass_on(computed)
        except SessionFault as fault:
            self._failed(self, fault)
        except OutOfOrder as error:
            self._failed(self, SessionFault(FaultCode.OUT_OF_ORDER, str(error)))
        except Exception as error:
            log.exception("a session failed")
            self._failed(self, SessionFault(FaultCode.INTERNAL, f"{type(error).__name__} in the computation"))

    async def _arrival(self) -> None:
        """Wait until there is a frame."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + IDLE_TIMEOUT_S
        while not len(self._inbox):  # it may have come and been cancelled
            if loop.time() >= deadline:
                raise SessionFault(FaultCode.NO_SESSION, f"nothing came for {IDLE_TIMEOUT_S:g} s")
            self._arrived.clear()
            timer = loop.call_at(deadline, self._arrived.set)
            try:
                await self._arrived.wait()
            finally:
                timer.cancel()

    def _check(self, frame: Frame) -> None:
        """Everything about a frame that does not depend on the frames before it."""
        span, problem = self._scheduler.span, ""
        if (frame.tokens is not None) != (self.opening.first == 0):
            problem = "tokens go to layer 0, hidden states to later layers"
        elif frame.tokens is not None and max(frame.tokens) >= span.vocab_size:
            problem = f"token ids must be below {span.vocab_size}"
        elif frame.hidden is not None and frame.hidden.hidden != span.hidden_size:
            problem = f"hidden states must be {span.hidden_size} wide"
        elif max(len(frame.compute_ms), len(frame.queue_ms)) >= MAX_HOPS:  # the next peer would refuse it, and us
            problem = f"a frame passes {MAX_HOPS} peers at most"
        if problem:
            raise SessionFault(FaultCode.BAD_MESSAGE, problem)

    def _check_place(self, placement: Placement, count: int) -> None:
        """What depends on the frames before: room, the model's context, and branches where there can be none."""
        rows, most, problem = placement.start + count, self.opening.max_tokens, ""
        if rows > most:
            problem = f"the session was opened for {most} tokens, and this makes {rows}, losing branches included"
        elif self._max_positions is not None and max(placement.positions) >= self._max_positions:
            problem = f"the model's context ends at {self._max_positions} tokens"
        elif placement.sees is not None and not self._scheduler.span.branches:
            problem = "this model takes no branches: each token must follow the one sent before it"
        if problem:
            raise SessionFault(FaultCode.BAD_MESSAGE, problem)

    async def _pass_on(self, computed: Computed) -> None:
        frame = self._frame
        assert frame is not None  # it has been computed
        if self.stream.stale(frame.epoch):
            return
        compute_ms = (*frame.compute_ms, computed.compute_ms)
        queue_ms = (*frame.queue_ms, computed.queue_ms)
        try:
            if self.onward is not None:
                update = {"tokens": None, "hidden": WireTensor.pack(computed.output)}
                times = {"compute_ms": compute_ms, "queue_ms": queue_ms}
                await self.onward.send(frame.model_copy(update=update | times))
            else:
                await self.opener.send(
                    Result(
                        session=frame.session,
                        epoch=frame.epoch,
                        first=frame.first,
                        count=frame.count,
                        hidden=WireTensor.pack(computed.output[frame.count - frame.tail :]),
                        compute_ms=compute_ms,
                        queue_ms=queue_ms,
                    )
                )
        except LinkClosed as error:
            if self.onward is None:
                raise SessionFault(FaultCode.NO_SESSION, "the client is gone") from None
            peer = self.hop.peer_id if self.hop else None
            raise SessionFault(FaultCode.NEXT_UNREACHABLE, str(error), peer) from None


def _inputs(frame: Frame) -> Tensor:
    """What the span computes on: token ids ``[n]`` at the model's start, hidden states ``[n, hidden]`` after it."""
    if frame.tokens is not None:
        return torch.tensor(frame.tokens)
    assert frame.hidden is not None  # a frame carries one of the two
    return frame.hidden.unpack()
