"""Links: messages both ways between two members of the swarm.

This module holds what all transports promise and share. `websocket` carries links directly,
`libp2p` through libp2p, and `dialer` opens both. A link can hold every message back for an
*emulated* delay, so that a swarm on one machine behaves as one on the internet.
"""

import abc
import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from swarm.errors import SwarmUnavailable
from swarm.util.tasks import end, within
from swarm.wire.codec import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, WireError, decode, encode
from swarm.wire.messages import WireMessage

CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 10.0  # a reader that takes nothing for this long is taken as gone
CLOSE_TIMEOUT_S = 1.0  # for closing in order; then the connection is cut off
HEARTBEAT_S = 6.0  # a silent link is given up after one and a half of these
# an event loop's timers are late by up to this much: the rest of an emulated delay is spun away
TIMER_S = 0.001
# TCP takes a connection that was silent for its retransmission timeout (200 ms and more) for a new
# one and begins with ten packets again; a frame of more then waits a whole round trip on every
# link. A busy link is never that silent.
WARM_PAUSE_S = 0.08
WARM_FOR_S = 3.0  # after the last message: longer than any loop, shorter than a person's pause
MAX_HELD = 256  # messages held back by an emulated delay


@dataclass(eq=False)
class LinkClosed(SwarmUnavailable):
    """The other side is gone, or does not speak our language."""

    address: str
    why: str

    def __str__(self) -> str:
        return f"the link to {self.address} is closed: {self.why}"


class Link(abc.ABC):
    """Messages to and from one other member. Made by `Dialer.connect`, or by the side that accepts.

    Any number of tasks may send, one may receive. The link does not buffer: senders wait for a slow
    reader, and messages that are not received stay with their sender. A link is lost if nothing
    arrives for one and a half `HEARTBEAT_S` while a task receives.

    A transport implements how bytes are written and read, and the sign of life.

    Attributes:
        peer_id: the proven id of the other side; "" before the handshake.
        version: of the protocol, as agreed in the handshake.
        rtt_ms: the round trip of the handshake, on the dialling side; infinite before.
        binding: bytes that both ends of this channel know, and that no other channel has; see
            `swarm.wire.handshake`.

    Args:
        transport: of the bytes; it is cut off if closing in order takes too long.
        address: of the other end, as dialled, or for error messages.
        delay_ms: emulated one-way delay of the messages that are sent here.
    """

    relayed: ClassVar[bool]  # it passes through a third computer

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        address: str,
        delay_ms: float = 0.0,
        binding: bytes = b"",
    ) -> None:
        self.address = address
        self.delay_ms = delay_ms
        self.binding = binding
        self.peer_id = ""
        self.rtt_ms = float("inf")
        self.version = PROTOCOL_VERSION
        self.bytes_sent = 0
        self.bytes_received = 0
        self._transport = transport
        self._lost = ""  # why nothing can be sent any more
        self._senders = 0
        self._sent_at = -WARM_FOR_S  # when the last message left, on the event loop's clock
        self._warmer: asyncio.Task[None] | None = None  # while messages leave now and then
        self._held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_HELD)
        self._releaser = asyncio.create_task(self._release()) if delay_ms else None

    @abc.abstractmethod
    async def _write(self, message: bytes) -> None:
        """Write a message; wait while the other side is slow.

        Raises ConnectionError or RuntimeError.
        """

    @abc.abstractmethod
    async def _read(self, most: int) -> bytes:
        """Return the next message.

        Messages longer than ``most`` bytes may be refused before they have arrived as a whole.
        Cancelling it loses nothing. Raises LinkClosed, WireError.
        """

    @abc.abstractmethod
    async def _sign(self) -> None:
        """Send a sign of life, which is not a message. Raises ConnectionError or RuntimeError."""

    @abc.abstractmethod
    async def _say_goodbye(self) -> None:
        """Close in order. Raises ConnectionError or RuntimeError."""

    @property
    @abc.abstractmethod
    def _is_shut(self) -> bool:
        """Whether the transport reports that it is closed."""

    async def send(self, message: WireMessage) -> int:
        """Send one message and return its size in bytes; waits while the other side is slow.

        Raises:
            LinkClosed: if the link is or gets closed, or takes nothing for `SEND_TIMEOUT_S`.
        """
        return await self.send_bytes(encode(message, self.version))

    async def receive(self) -> WireMessage:
        """Return the next message.

        Raises:
            LinkClosed: if the link is closed.
            WireError: if the other side sent bytes that are not a message.
        """
        return decode(await self.receive_bytes(), self.version)

    async def send_bytes(self, data: bytes) -> int:
        """Send an encoded message, as `send` does."""
        if self.closed:
            raise LinkClosed(self.address, self._lost or "it was closed")
        if self._releaser is None:
            await self._send_now(data)
        else:
            await self._hold(data)
        return len(data)

    async def receive_bytes(self, most: int = MAX_MESSAGE_BYTES) -> bytes:
        """The next message as it came, which may be so long. Raises as `receive`."""
        data = await self._read(most)
        if len(data) > most:
            raise WireError(f"{len(data)} bytes, at most {most} are allowed")
        self.bytes_received += len(data)
        return data

    def __aiter__(self) -> "Link":
        """All messages until the link is closed."""
        return self

    async def __anext__(self) -> WireMessage:
        try:
            return await self.receive()
        except LinkClosed:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Close; what an emulated delay still holds back is lost.

        May be called twice, ends in `CLOSE_TIMEOUT_S`.
        """
        self._lost = self._lost or "we closed it"
        try:
            await end(*filter(None, (self._releaser, self._warmer)))
            with contextlib.suppress(asyncio.TimeoutError, ConnectionError, RuntimeError):
                await within(CLOSE_TIMEOUT_S, self._say_goodbye())
        finally:
            self._transport.abort()

    @property
    def closed(self) -> bool:
        return bool(self._lost) or self._is_shut

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send_now(self, data: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        if self._warmer is None or self._warmer.done():
            self._warmer = asyncio.create_task(self._keep_warm())
        self.bytes_sent += len(data)
        self._senders += 1
        if self._senders == 1:
            self._watch(-1)
        try:
            await self._write(data)
        except (ConnectionError, RuntimeError) as error:
            self._lost = self._lost or str(error) or type(error).__name__
        finally:
            self._senders -= 1
            if not self._senders:
                self._watchdog.cancel()
        if self._lost:
            raise LinkClosed(self.address, self._lost)

    def _watch(self, left_before: int) -> None:
        """Cut the link off if no bytes have left since the last look, while a task sends.

        A thin link is slow, but some bytes leave.
        """
        unsent = self._transport.get_write_buffer_size()
        left = self.bytes_sent - unsent
        if unsent and left == left_before:
            self._cut(f"it took nothing for {SEND_TIMEOUT_S:g} s")
        self._watchdog = asyncio.get_running_loop().call_later(SEND_TIMEOUT_S, self._watch, left)

    def _cut(self, why: str) -> None:
        self._lost = self._lost or why
        self._transport.abort()

    async def _keep_warm(self) -> None:
        """Send signs of life, until no message was sent for `WARM_FOR_S`."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not self.closed and loop.time() - self._sent_at < WARM_FOR_S:
                await asyncio.sleep(WARM_PAUSE_S)
                if loop.time() - self._sent_at >= WARM_PAUSE_S:
                    await self._sign()

    async def _hold(self, data: bytes) -> None:
        due = time.monotonic() + self.delay_ms / 1e3
        if not self._held.full():
            return self._held.put_nowait((due, data))
        while not self.closed:  # which the releaser sees to, if the other side takes nothing
            with contextlib.suppress(asyncio.TimeoutError):
                await within(SEND_TIMEOUT_S, self._held.put((due, data)))
                break
        if self.closed:  # the room is that of messages that are lost, and so is this one
            raise LinkClosed(self.address, self._lost or "it was closed")

    async def _release(self) -> None:
        """Let each message go when its time has come, in order. Ends with the link."""
        try:
            while True:
                due, data = await self._held.get()
                await asyncio.sleep(due - time.monotonic() - TIMER_S)
                while time.monotonic() < due:  # noqa: ASYNC110 (nothing is waited for but time)
                    await asyncio.sleep(0)
                await self._send_now(data)
        except LinkClosed:
            pass
        finally:
            while not self._held.empty():  # so that senders that wait for room end
                self._held.get_nowait()
