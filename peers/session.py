"""One session on one peer: frames in, computed, passed on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import torch
from torch import Tensor

from peers.cache import KVCache
from peers.scheduler import Computed, Scheduler
from peers.span import Work
from swarm.network.link import Link, LinkClosed
from swarm.wire.messages import Fault, FaultCode, Frame, Hop, Open, Result
from swarm.wire.stream import OutOfOrder, Stream
from swarm.wire.tensors import WireTensor

MAX_INBOX = 64  # frames waiting for one session; a client that has more in flight breaks the protocol

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
        over: called once when the session has failed, with its fault.
    """

    def __init__(
        self,
        opening: Open,
        opener: Link,
        onward: Link | None,
        cache: KVCache,
        scheduler: Scheduler,
        over: Callable[["PeerSession", SessionFault], Awaitable[None]],
    ) -> None:
        self.opening, self.opener, self.onward = opening, opener, onward
        self.stream = Stream()
        self._cache, self._scheduler, self._over = cache, scheduler, over
        self._inbox: asyncio.Queue[Frame] = asyncio.Queue(MAX_INBOX)
        self._task = asyncio.create_task(self._run())

    @property
    def hop(self) -> Hop | None:
        return self.opening.next

    def accept(self, frame: Frame) -> None:
        """Put a frame in the inbox. Raises `SessionFault` if it does not belong here."""
        if frame.start + frame.count > self.opening.max_tokens:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"the session was opened for {self.opening.max_tokens} tokens")
        try:
            self._inbox.put_nowait(frame)
        except asyncio.QueueFull:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"more than {MAX_INBOX} frames in flight") from None

    def cancel(self, epoch: int) -> None:
        """Let frames of older epochs die in the inbox."""
        self.stream.cancel(epoch)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                frame = await self._inbox.get()
                inputs = self._inputs(frame)
                if not self.stream.admit(frame.epoch, frame.start, frame.count):
                    continue
                computed = await self._scheduler.compute(
                    Work(self._cache, frame.start, inputs), (self.opening.first, self.opening.last)
                )
                await self._pass_on(frame, computed)
        except SessionFault as fault:
            await self._over(self, fault)
        except OutOfOrder as error:
            await self._over(self, SessionFault(FaultCode.OUT_OF_ORDER, str(error)))
        except Exception as error:
            log.exception("a session failed")
            await self._over(self, SessionFault(FaultCode.INTERNAL, f"{type(error).__name__} in the computation"))

    def _inputs(self, frame: Frame) -> Tensor:
        """What the span computes on: token ids ``[n]`` at the model's start, hidden states ``[n, hidden]`` after it."""
        span = self._scheduler.span
        if (frame.tokens is not None) != (self.opening.first == 0):
            raise SessionFault(FaultCode.BAD_MESSAGE, "tokens go to layer 0, hidden states to later layers")
        if frame.tokens is not None:
            if max(frame.tokens) >= span.vocab_size:
                raise SessionFault(FaultCode.BAD_MESSAGE, f"token ids must be below {span.vocab_size}")
            return torch.tensor(frame.tokens)
        assert frame.hidden is not None
        if frame.hidden.hidden != span.hidden_size:
            raise SessionFault(FaultCode.BAD_MESSAGE, f"hidden states must be {span.hidden_size} wide")
        return frame.hidden.unpack()

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

    async def tell(self, fault: SessionFault) -> None:
        """Tell the client, if it is still there."""
        message = Fault(code=fault.code, text=fault.text[:300], session=self.opening.session, peer=fault.peer)
        try:
            await self.opener.send(message)
        except LinkClosed:
            log.debug("the client of a failed session is gone")
