"""What a WebSocket does, as a link tells it: over a socket that is a script."""

import asyncio
from collections import deque
from typing import Any, cast

import aiohttp
import pytest

from swarm.network.links.link import LinkClosed
from swarm.network.links.websocket import AnyWebSocket, WebSocketLink, WebSockets
from swarm.wire.codec import WireError, encode
from swarm.wire.messages import Ping, Pong


class Transport(asyncio.WriteTransport):
    """The connection below a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


class Socket:
    """A WebSocket that has received some messages, or fails."""

    def __init__(self, *received: aiohttp.WSMessage | Exception) -> None:
        self.transport = Transport()
        self._writer = self
        self.received = deque(received)
        self.sent: list[bytes] = []
        self.failure: Exception | None = None
        self.closed = False

    async def receive(self) -> aiohttp.WSMessage:
        message = self.received.popleft()
        if isinstance(message, Exception):
            raise message
        return message

    async def send_bytes(self, data: bytes) -> None:
        if self.failure:
            raise self.failure
        self.sent.append(data)

    async def ping(self) -> None:
        await self.send_bytes(b"ping")

    async def close(self) -> None:
        self.closed = True


def link_over(socket: Socket, certificate: str = "") -> WebSocketLink:
    return WebSocketLink(cast(AnyWebSocket, socket), "127.0.0.1:1", certificate=certificate)


def message(kind: aiohttp.WSMsgType, data: Any = None) -> aiohttp.WSMessage:
    return aiohttp.WSMessage(kind, data, "")  # type: ignore[return-value]


async def test_messages_are_bytes_both_ways() -> None:
    socket = Socket(message(aiohttp.WSMsgType.BINARY, encode(Pong(nonce=1))))
    async with link_over(socket) as link:
        assert await link.receive() == Pong(nonce=1)
        await link.send(Ping(nonce=2))
    assert socket.sent == [encode(Ping(nonce=2))]


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (message(aiohttp.WSMsgType.TEXT, "hi"), "text where bytes were due"),
        (
            message(aiohttp.WSMsgType.ERROR, aiohttp.WebSocketError(1009, "too big")),
            "too big",
        ),
    ],
)
async def test_what_breaks_the_protocol_is_the_other_sides_fault(
    received: aiohttp.WSMessage, why: str
) -> None:
    async with link_over(Socket(received)) as link:
        with pytest.raises(WireError, match=why):
            await link.receive()


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (message(aiohttp.WSMsgType.CLOSE, 1000), "the other side left"),
        (message(aiohttp.WSMsgType.CLOSED), "the other side left"),
        (message(aiohttp.WSMsgType.ERROR, ConnectionResetError("reset")), "reset"),
        (message(aiohttp.WSMsgType.ERROR, TimeoutError()), "TimeoutError"),
        (ConnectionResetError("reset"), "reset"),
        (RuntimeError("it was closed before"), "it was closed before"),
    ],
    ids=str,
)
async def test_an_end_is_a_closed_link(received: aiohttp.WSMessage | Exception, why: str) -> None:
    async with link_over(Socket(received)) as link:
        with pytest.raises(LinkClosed, match=f"127.0.0.1:1 is closed: {why}$"):
            await link.receive()


async def test_a_link_that_we_closed_says_so() -> None:
    link = link_over(Socket(message(aiohttp.WSMsgType.CLOSED)))
    await link.close()
    with pytest.raises(LinkClosed, match="we closed it"):
        await link.receive()


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (aiohttp.ClientConnectionResetError("cannot write to closing transport"), "cannot write"),
        (aiohttp.ClientError(), "ClientError"),
        (ConnectionResetError("reset"), "reset"),
    ],
    ids=str,
)
async def test_a_socket_that_takes_nothing_is_a_closed_link(failure: Exception, why: str) -> None:
    socket = Socket()
    socket.failure = failure
    async with link_over(socket) as link:
        with pytest.raises(LinkClosed, match=why):
            await link.send(Ping(nonce=1))
        assert link.closed


async def test_a_sign_of_life_is_a_ping_of_the_protocol() -> None:
    socket = Socket()
    async with link_over(socket) as link:
        await link._sign()
        assert socket.sent == [b"ping"]
        socket.failure = aiohttp.ClientError("gone")
        with pytest.raises(ConnectionError, match="gone"):
            await link._sign()


async def test_closing_says_goodbye_and_cuts_the_connection_off() -> None:
    socket = Socket()
    link = link_over(socket)
    assert (link.closed, link.relayed) == (False, False)
    await link.close()
    assert (socket.closed, socket.transport.aborted, link.closed) == (True, True, True)


async def test_a_socket_that_is_closed_is_a_closed_link() -> None:
    socket = Socket()
    link = link_over(socket)
    socket.closed = True
    with pytest.raises(LinkClosed, match="it was closed"):
        await link.send(Ping(nonce=1))
    await link.close()


async def test_a_channel_is_bound_to_the_servers_certificate() -> None:
    """RFC 5929, section 4."""
    async with link_over(Socket(), certificate="ab" * 32) as link:
        assert link.binding == b"tls-server-end-point:" + b"ab" * 32


@pytest.mark.parametrize(
    ("address", "certificate"),
    [("127.0.0.1:1", "no hex"), ("127.0.0.1:no", "ab" * 32), ("", "ab" * 32)],
)
async def test_what_cannot_be_dialled_is_a_closed_link(address: str, certificate: str) -> None:
    sockets = WebSockets()
    with pytest.raises(LinkClosed):
        await sockets.open(address, certificate)
    await sockets.close()
