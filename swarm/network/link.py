"""Links: one TLS WebSocket between two members of the swarm, carrying messages both ways.

The other side is known by the fingerprint of its certificate, which its signed record vouches for.
For demonstrations a link can hold every message back for a while before it leaves: an *emulated*
delay, so that a swarm on one machine behaves as if there were an internet between its members.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from types import TracebackType

import aiohttp
from aiohttp import web

from swarm.errors import SwarmError
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError, decode, encode
from swarm.wire.messages import Message

PATH = "/swarm"
CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 10.0  # a reader that slow is as good as gone
HEARTBEAT_S = 4.0  # a silent link is given up after one and a half of these
MAX_QUEUED = 256  # messages held back by an emulated delay

log = logging.getLogger(__name__)

AnyWebSocket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class LinkClosed(SwarmError):
    """The other side is gone, or does not speak our language."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(address, why)
        self.address, self.why = address, why

    def __str__(self) -> str:
        return f"the link to {self.address} is closed: {self.why}"


class Link:
    """Messages to and from one other member. Made by `Dialer.connect` or from an accepted WebSocket.

    Args:
        address: who is at the other end, for error messages.
        delay_ms: emulated one-way delay of what is sent from here.
    """

    def __init__(self, socket: AnyWebSocket, address: str, delay_ms: float = 0.0) -> None:
        self.address, self.delay_ms = address, delay_ms
        self.bytes_sent = self.bytes_received = 0
        self._socket = socket
        self._held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_QUEUED)
        self._releaser = asyncio.create_task(self._release()) if delay_ms else None

    async def send(self, message: Message) -> None:
        """Send one message; waits while the other side is slow.

        Raises:
            LinkClosed: if the link is or gets closed, or takes nothing for `SEND_TIMEOUT_S`.
        """
        data = encode(message)
        self.bytes_sent += len(data)
        if self._releaser is None:
            await self._send_now(data)
        elif self._releaser.done():
            raise LinkClosed(self.address, "it was lost")
        else:
            await self._held.put((time.monotonic() + self.delay_ms / 1e3, data))

    async def receive(self) -> Message:
        """The next message.

        Raises:
            LinkClosed: if the link is closed.
            WireError: if the other side sent something that is no message.
        """
        received = await self._socket.receive()
        if received.type is aiohttp.WSMsgType.BINARY:
            self.bytes_received += len(received.data)
            return decode(received.data)
        if received.type is aiohttp.WSMsgType.TEXT:
            raise WireError("text where bytes were due")
        raise LinkClosed(self.address, "the other side left")

    async def __aiter__(self) -> AsyncIterator[Message]:
        """All messages until the link is closed."""
        with contextlib.suppress(LinkClosed):
            while True:
                yield await self.receive()

    async def close(self) -> None:
        """Close; what an emulated delay still holds back is lost. May be called twice."""
        if self._releaser is not None:
            self._releaser.cancel()
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._socket.close(), 1.0)

    @property
    def closed(self) -> bool:
        return self._socket.closed or (self._releaser is not None and self._releaser.done())

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send_now(self, data: bytes) -> None:
        try:
            await asyncio.wait_for(self._socket.send_bytes(data), SEND_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise LinkClosed(self.address, f"it took nothing for {SEND_TIMEOUT_S:g} s") from None
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise LinkClosed(self.address, str(error) or type(error).__name__) from None

    async def _release(self) -> None:
        """Let each message go when its time has come, in order."""
        try:
            while True:
                due, data = await self._held.get()
                await asyncio.sleep(due - time.monotonic())
                await self._send_now(data)
        except LinkClosed as error:
            log.debug("%s", error)


class Dialer:
    """Opens links. One per process; close it at the end."""

    def __init__(self, delay_ms: float = 0.0) -> None:
        self.delay_ms = delay_ms
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S))

    async def connect(self, address: str, certificate: str) -> Link:
        """A link to ``host:port``, which must show the certificate of that SHA-256 fingerprint (hex).

        Raises:
            LinkClosed: if nobody answers in `CONNECT_TIMEOUT_S`, or somebody else does.
        """
        dial = self._http.ws_connect(
            f"wss://{address}{PATH}",
            ssl=aiohttp.Fingerprint(bytes.fromhex(certificate)),
            max_msg_size=MAX_MESSAGE_BYTES,
            heartbeat=HEARTBEAT_S,
        )
        try:
            socket = await asyncio.wait_for(dial, CONNECT_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise LinkClosed(address, f"no answer in {CONNECT_TIMEOUT_S:g} s") from None
        except aiohttp.ServerFingerprintMismatch:
            raise LinkClosed(address, "it shows another certificate than its record says") from None
        except (aiohttp.ClientError, OSError) as error:
            raise LinkClosed(address, str(error) or type(error).__name__) from None
        return Link(socket, address, self.delay_ms)

    async def close(self) -> None:
        await self._http.close()


async def accept(request: web.Request, delay_ms: float = 0.0) -> tuple[Link, web.StreamResponse]:
    """The serving side of `Dialer.connect`: the link, and what the web handler returns when the link is done."""
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=HEARTBEAT_S, compress=False)
    await socket.prepare(request)
    return Link(socket, request.remote or "somebody", delay_ms), socket
