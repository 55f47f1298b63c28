"""Direct links: one TLS WebSocket each.

The other side is authenticated by the fingerprint of its certificate, as in its signed record.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web

from swarm.network.links import link as links
from swarm.network.links.link import HEARTBEAT_S, Link, LinkClosed
from swarm.util.tasks import within
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError

PATH = "/swarm"

AnyWebSocket: TypeAlias = (
    # generic since aiohttp 3.14
    "aiohttp.ClientWebSocketResponse[Any] | web.WebSocketResponse[Any]"
)


class WebSocketLink(Link):
    """A link over a WebSocket, with the close and the pings of that protocol."""

    relayed = False

    def __init__(
        self, socket: AnyWebSocket, address: str, delay_ms: float = 0.0, certificate: str = ""
    ) -> None:
        # aiohttp's own close waits for what the other side has not read yet; only the transport can
        # be cut off.
        transport: Any = socket._writer.transport  # type: ignore[union-attr]
        # RFC 5929: only the server has its key
        binding = b"tls-server-end-point:" + certificate.encode()
        super().__init__(transport, address, delay_ms, binding)
        self._socket = socket

    async def _write(self, message: bytes) -> None:
        with _errors_of_connections():
            await self._socket.send_bytes(message)

    async def _read(self, most: int) -> bytes:
        try:
            received = await self._socket.receive()
        # aiohttp answers pings while it reads, and does not let a closed socket be read again and
        # again.
        except (ConnectionError, RuntimeError) as error:
            raise LinkClosed(self.address, str(error)) from None
        if received.type is aiohttp.WSMsgType.BINARY:
            data: bytes = received.data
            return data
        if received.type is aiohttp.WSMsgType.TEXT:
            raise WireError("text where bytes were due")
        if isinstance(received.data, aiohttp.WebSocketError):
            raise WireError(str(received.data))
        if isinstance(received.data, Exception):
            raise LinkClosed(self.address, str(received.data) or type(received.data).__name__)
        raise LinkClosed(self.address, self._lost or "the other side left")

    async def _sign(self) -> None:
        with _errors_of_connections():
            await self._socket.ping()

    async def _say_goodbye(self) -> None:
        await self._socket.close()

    @property
    def _is_shut(self) -> bool:
        return self._socket.closed


class WebSockets:
    """Opens direct links. Close it at the end."""

    def __init__(self) -> None:
        pinned_only = aiohttp.TraceConfig()
        pinned_only.on_request_redirect.append(_refuse_redirect)
        self._http = aiohttp.ClientSession(
            # a link keeps its connection; owners bound how many they have
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=links.CONNECT_TIMEOUT_S),
            trace_configs=[pinned_only],
        )

    async def open(self, address: str, certificate: str, delay_ms: float = 0.0) -> WebSocketLink:
        """Open a link to ``host:port``, which must show the certificate of that SHA-256 fingerprint
        (hex).

        Raises:
            LinkClosed: if it does not answer in `CONNECT_TIMEOUT_S`, or shows another certificate.
        """
        dialling = asyncio.ensure_future(self._dial(address, certificate))
        try:
            socket = await within(links.CONNECT_TIMEOUT_S, dialling)
        except asyncio.CancelledError:
            if dialling.done() and not dialling.cancelled() and not dialling.exception():
                # it came together with the cancellation
                await WebSocketLink(dialling.result(), address).close()
            raise
        except asyncio.TimeoutError:
            raise LinkClosed(address, f"no answer in {links.CONNECT_TIMEOUT_S:g} s") from None
        except aiohttp.ServerFingerprintMismatch:
            raise LinkClosed(address, "it shows another certificate than its record says") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no address at all
            raise LinkClosed(address, str(error) or type(error).__name__) from None
        return WebSocketLink(socket, address, delay_ms, certificate)

    async def close(self) -> None:
        await self._http.close()

    async def _dial(self, address: str, certificate: str) -> AnyWebSocket:
        return await self._http.ws_connect(
            f"wss://{address}{PATH}",
            ssl=_pinned(certificate),
            max_msg_size=MAX_MESSAGE_BYTES,
            heartbeat=HEARTBEAT_S,
        )


def _pinned(certificate: str) -> aiohttp.Fingerprint:
    """Return the pin of a certificate, in place of authorities and names."""
    return aiohttp.Fingerprint(bytes.fromhex(certificate))


async def accept(
    request: web.Request, certificate: str, delay_ms: float = 0.0
) -> tuple[Link, web.StreamResponse]:
    """Return the serving side of a link, and what the web handler returns when the link is done.

    Args:
        certificate: the fingerprint of the one that we show.
    """
    socket = web.WebSocketResponse(
        max_msg_size=MAX_MESSAGE_BYTES, heartbeat=HEARTBEAT_S, compress=False
    )
    await socket.prepare(request)
    return WebSocketLink(socket, request.remote or "somebody", delay_ms, certificate), socket


@contextlib.contextmanager
def _errors_of_connections() -> Iterator[None]:
    """Turn aiohttp's errors into those that every transport raises."""
    try:
        yield
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


async def _refuse_redirect(*_: object) -> None:
    """Refuse redirects: the pinned certificate belongs to the address that was dialled."""
    raise aiohttp.ClientError("it sends us elsewhere")
