"""Links: one TLS WebSocket between two members of the swarm, carrying messages both ways.

The other side is known by the fingerprint of its certificate, which its signed record vouches for.
For demonstrations a link can hold every message back for a while before it leaves: an *emulated*
delay, so that a swarm on one machine behaves as if there were an internet between its members.
"""

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web

from swarm.errors import SwarmError
from swarm.network.tasks import end, within
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError, decode, encode
from swarm.wire.messages import Message

PATH = "/swarm"
CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 10.0  # a reader that takes nothing for so long is as good as gone
CLOSE_TIMEOUT_S = 1.0  # for a goodbye; whoever does not answer it is cut off
HEARTBEAT_S = 6.0  # a silent link is given up after one and a half of these
TIMER_S = 0.001  # an event loop's timers are late by up to this much: the rest of an emulated delay is spun away
# TCP takes a connection that was silent for its retransmission timeout (200 ms and more) for a new one and begins with
# ten packets again; a frame of more then waits a whole round trip on every link. A busy link is never that silent.
WARM_PAUSE_S = 0.08
WARM_FOR_S = 3.0  # after the last message: longer than any loop, shorter than a person's pause
MAX_HELD = 256  # messages held back by an emulated delay

AnyWebSocket: TypeAlias = (
    "aiohttp.ClientWebSocketResponse[Any] | web.WebSocketResponse[Any]"  # generic since aiohttp 3.14
)


class LinkClosed(SwarmError):
    """The other side is gone, or does not speak our language."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(address, why)
        self.address, self.why = address, why

    def __str__(self) -> str:
        return f"the link to {self.address} is closed: {self.why}"


class Link:
    """Messages to and from one other member. Made by `Dialer.connect` or from an accepted WebSocket.

    Any number of tasks may send, one may receive.

    Args:
        address: who is at the other end, for error messages.
        delay_ms: emulated one-way delay of what is sent from here.
    """

    def __init__(self, socket: AnyWebSocket, address: str, delay_ms: float = 0.0) -> None:
        self.address, self.delay_ms = address, delay_ms
        self.bytes_sent = self.bytes_received = 0
        self._socket = socket
        # aiohttp's own close waits for what the other side has not read yet; only the transport can be cut off.
        transport: Any = socket._writer.transport  # type: ignore[union-attr]
        self._transport: asyncio.Transport = transport
        self._lost = ""  # why nothing can be sent any more
        self._senders = 0
        self._sent_at = -WARM_FOR_S  # when the last message left, on the event loop's clock
        self._warmer: asyncio.Task[None] | None = None  # while messages leave now and then
        self._held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_HELD)
        self._releaser = asyncio.create_task(self._release()) if delay_ms else None

    async def send(self, message: Message) -> int:
        """Send one message and return its size in bytes; waits while the other side is slow.

        Raises:
            LinkClosed: if the link is or gets closed, or takes nothing for `SEND_TIMEOUT_S`.
        """
        data = encode(message)
        if self.closed:
            raise LinkClosed(self.address, self._lost or "it was closed")
        if self._releaser is None:
            await self._send_now(data)
        else:
            await self._hold(data)
        return len(data)

    async def receive(self) -> Message:
        """The next message.

        Raises:
            LinkClosed: if the link is closed.
            WireError: if the other side sent something that is no message.
        """
        try:
            received = await self._socket.receive()
        # aiohttp answers pings while it reads, and does not let a closed socket be read again and again.
        except (ConnectionError, RuntimeError) as error:
            raise LinkClosed(self.address, str(error)) from None
        if received.type is aiohttp.WSMsgType.BINARY:
            self.bytes_received += len(received.data)
            return decode(received.data)
        if received.type is aiohttp.WSMsgType.TEXT:
            raise WireError("text where bytes were due")
        if isinstance(received.data, aiohttp.WebSocketError):
            raise WireError(str(received.data))
        if isinstance(received.data, Exception):
            raise LinkClosed(self.address, str(received.data) or type(received.data).__name__)
        raise LinkClosed(self.address, self._lost or "the other side left")

    def __aiter__(self) -> "Link":
        """All messages until the link is closed."""
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except LinkClosed:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Close; what an emulated delay still holds back is lost. May be called twice, ends in `CLOSE_TIMEOUT_S`."""
        self._lost = self._lost or "we closed it"
        try:
            await end(*filter(None, (self._releaser, self._warmer)))
            with contextlib.suppress(asyncio.TimeoutError, ConnectionError, RuntimeError):
                await within(CLOSE_TIMEOUT_S, self._socket.close())
        finally:
            self._transport.abort()

    @property
    def closed(self) -> bool:
        return bool(self._lost) or self._socket.closed

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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
            await self._socket.send_bytes(data)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            self._lost = self._lost or str(error) or type(error).__name__
        finally:
            self._senders -= 1
            if not self._senders:
                self._watchdog.cancel()
        if self._lost:
            raise LinkClosed(self.address, self._lost)

    def _watch(self, left_before: int) -> None:
        """While somebody sends: cut the link off if nothing has left. A thin link takes long, but it moves."""
        unsent = self._transport.get_write_buffer_size()
        left = self.bytes_sent - unsent
        if unsent and left == left_before:
            self._lost = f"it took nothing for {SEND_TIMEOUT_S:g} s"
            self._transport.abort()
        self._watchdog = asyncio.get_running_loop().call_later(SEND_TIMEOUT_S, self._watch, left)

    async def _keep_warm(self) -> None:
        """Break silence with a ping, until nothing was said for a while."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, RuntimeError, aiohttp.ClientError):
            while not self.closed and loop.time() - self._sent_at < WARM_FOR_S:
                await asyncio.sleep(WARM_PAUSE_S)
                if loop.time() - self._sent_at >= WARM_PAUSE_S:
                    await self._socket.ping()

    async def _hold(self, data: bytes) -> None:
        due = time.monotonic() + self.delay_ms / 1e3
        if not self._held.full():
            return self._held.put_nowait((due, data))
        while not self.closed:  # which the releaser sees to, if the other side takes nothing
            with contextlib.suppress(asyncio.TimeoutError):
                return await within(SEND_TIMEOUT_S, self._held.put((due, data)))
        raise LinkClosed(self.address, self._lost)

    async def _release(self) -> None:
        """Let each message go when its time has come, in order. Ends with the link."""
        with contextlib.suppress(LinkClosed):
            while True:
                due, data = await self._held.get()
                await asyncio.sleep(due - time.monotonic() - TIMER_S)
                while time.monotonic() < due:  # noqa: ASYNC110 (nothing is waited for but time)
                    await asyncio.sleep(0)
                await self._send_now(data)
        while not self._held.empty():  # whoever waits for a place need not wait for nothing
            self._held.get_nowait()


class Dialer:
    """Opens links. One per process; close it at the end."""

    def __init__(self, delay_ms: float = 0.0) -> None:
        self.delay_ms = delay_ms
        pinned_only = aiohttp.TraceConfig()
        pinned_only.on_request_redirect.append(_refuse_redirect)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # a link keeps its connection; owners bound how many they have
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
            trace_configs=[pinned_only],
        )

    async def connect(self, address: str, certificate: str) -> Link:
        """A link to ``host:port``, which must show the certificate of that SHA-256 fingerprint (hex).

        Raises:
            LinkClosed: if nobody answers in `CONNECT_TIMEOUT_S`, or somebody else does.
        """
        try:
            dial = self._http.ws_connect(
                f"wss://{address}{PATH}",
                ssl=aiohttp.Fingerprint(bytes.fromhex(certificate)),
                max_msg_size=MAX_MESSAGE_BYTES,
                heartbeat=HEARTBEAT_S,
            )
            socket = await within(CONNECT_TIMEOUT_S, dial)
        except asyncio.TimeoutError:
            raise LinkClosed(address, f"no answer in {CONNECT_TIMEOUT_S:g} s") from None
        except aiohttp.ServerFingerprintMismatch:
            raise LinkClosed(address, "it shows another certificate than its record says") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no address at all
            raise LinkClosed(address, str(error) or type(error).__name__) from None
        return Link(socket, address, self.delay_ms)

    async def close(self) -> None:
        await self._http.close()


async def accept(request: web.Request, delay_ms: float = 0.0) -> tuple[Link, web.StreamResponse]:
    """The serving side of `Dialer.connect`: the link, and what the web handler returns when the link is done."""
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=HEARTBEAT_S, compress=False)
    await socket.prepare(request)
    return Link(socket, request.remote or "somebody", delay_ms), socket


async def _refuse_redirect(*_: object) -> None:
    """A member answers for itself: following it elsewhere would leave the pinned certificate behind."""
    raise aiohttp.ClientError("it sends us elsewhere")
