"""One session on one peer: frames in, computed, passed on."""

import asyncio
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from peers.cache import KVCache
from peers.scheduler import Computed, Scheduler
from peers.span import Work
from swarm.network.link import Link, LinkClosed
from swarm.network.tasks import end, within
from swarm.wire.messages import MAX_HOPS, MAX_TEXT, Fault, FaultCode, Frame, Hop, Open, Result
from swarm.wire.stream import OutOfOrder, Stream
from swarm.wire.tensors import WireTensor

MAX_STALE_TOKENS = 2048  # waiting positions beyond a session's own: windows that a newer epoch has overtaken
IDLE_TIMEOUT_S = 300.0  # a session that says nothing for so long gives its cache back to others

log = logging.getLogger(__name__)


class SessionFault(Exception):
    """The session cannot go on; tells its client why."""

    def __init__(self, code: FaultCode, text: str, peer: str | None = None) -> None:
        super().__init__(code, text, peer)
        self.code, self.text, self.peer = code, text, peer


class PeerSession:
    """Layers ``[first, last)`` for one client.

    Args:
        opening: the message that opened it.
        opener: the client's link; faults and, from the last peer of a chain, results go there.
        onward: the link to the next peer, or None at the end of the chain.
        failed: called once, by the session's own task, when the session cannot go on.
    """

    def __init__(
        self,
        opening: Open,
        opener: Link,
        onward: Link | None,
        cache: KVCache,
        scheduler: Scheduler,
        failed: Callable[["PeerSession", SessionFault], None],
    ) -> None:
        self.opening, self.opener, self.onward = opening, opener, onward
        self.stream = Stream()
        self._cache, self._scheduler, self._failed = cache, scheduler, failed
        self._inbox: asyncio.Queue[Frame] = asyncio.Queue()  # bounded by `_waiting_tokens`
        self._waiting_tokens = 0
        self._task = asyncio.create_task(self._run())

    @property
    def hop(self) -> Hop | None:
        return self.opening.next

    def accept(self, frame: Frame) -> None:
        """Put a frame in the inbox; never waits. Raises `SessionFault` if it does not belong here."""
        self._check(frame)
        # All chunks of a prompt may come at once, so what may wait grows with what the session has reserved.
        if self._waiting_tokens + frame.count > self.opening.max_tokens + MAX_STALE_TOKENS:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"{self._waiting_tokens} positions are waiting already")
        self._waiting_tokens += frame.count
        self._inbox.put_nowait(frame)

    def cancel(self, epoch: int) -> None:
        """Let frames of older epochs die in the inbox."""
        self.stream.cancel(epoch)

    async def close(self) -> None:
        """Stop computing. May be called twice, but not by the session's own task."""
        await end(self._task)

    async def tell(self, fault: SessionFault) -> None:
        """Tell the client, if it is still there."""
        message = Fault(code=fault.code, text=fault.text[:MAX_TEXT], session=self.opening.session, peer=fault.peer)
        try:
            await self.opener.send(message)
        except LinkClosed:
            log.debug("the client of a failed session is gone")

    async def _run(self) -> None:
        try:
            while True:
                frame = await self._next_frame()
                if not self.stream.admit(frame.epoch, frame.start, frame.count):
                    continue
                computed = await self._scheduler.compute(
                    Work(self._cache, frame.start, _inputs(frame)), (self.opening.first, self.opening.last)
                )
                await self._pass_on(frame, computed)
        except SessionFault as fault:
            self._failed(self, fault)
        except OutOfOrder as error:
            self._failed(self, SessionFault(FaultCode.OUT_OF_ORDER, str(error)))
        except Exception as error:
            log.exception("a session failed")
            self._failed(self, SessionFault(FaultCode.INTERNAL, f"{type(error).__name__} in the computation"))

    async def _next_frame(self) -> Frame:
        if self._inbox.empty():
            try:
                frame = await within(IDLE_TIMEOUT_S, self._inbox.get())
            except asyncio.TimeoutError:
                raise SessionFault(FaultCode.NO_SESSION, f"nothing came for {IDLE_TIMEOUT_S:g} s") from None
        else:
            frame = self._inbox.get_nowait()
        self._waiting_tokens -= frame.count
        return frame

    def _check(self, frame: Frame) -> None:
        """Everything about a frame that does not depend on the frames before it."""
        span, limit, problem = self._scheduler.span, self.opening.max_tokens, ""
        if frame.start + frame.count > limit:
            problem = f"the session was opened for {limit} tokens"
        elif (frame.tokens is not None) != (self.opening.first == 0):
            problem = "tokens go to layer 0, hidden states to later layers"
        elif frame.tokens is not None and max(frame.tokens) >= span.vocab_size:
            problem = f"token ids must be below {span.vocab_size}"
        elif frame.hidden is not None and frame.hidden.hidden != span.hidden_size:
            problem = f"hidden states must be {span.hidden_size} wide"
        elif len(frame.compute_ms) >= MAX_HOPS:  # the next peer would refuse the frame, and us with it
            problem = f"a frame passes {MAX_HOPS} peers at most"
        if problem:
            raise SessionFault(FaultCode.BAD_MESSAGE, problem)

    async def _pass_on(self, frame: Frame, computed: Computed) -> None:
        compute_ms = (*frame.compute_ms, computed.compute_ms)
        try:
            if self.onward is not None:
                hidden = WireTensor.pack(computed.output)
                await self.onward.send(
                    frame.model_copy(update={"tokens": None, "hidden": hidden, "compute_ms": compute_ms})
                )
            else:
                tail = WireTensor.pack(computed.output[frame.count - frame.tail :])
                await self.opener.send(
                    Result(
                        session=frame.session,
                        epoch=frame.epoch,
                        start=frame.start,
                        count=frame.count,
                        hidden=tail,
                        compute_ms=compute_ms,
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
