"""The port of a peer: direct links come in here, each after its handshake."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from aiohttp import web

from swarm.errors import CannotListen
from swarm.network.links import handshake
from swarm.network.links.handshake import HandshakeLimiter, HandshakeTicket
from swarm.network.links.link import Link
from swarm.network.links.websocket import PATH, accept
from swarm.util.tasks import CATCH_UP_S, stood_still

# bytes that are read before the handshake is over; more may follow right behind it
MAX_AHEAD = 1 << 16


@contextlib.asynccontextmanager
async def listening(
    limiter: HandshakeLimiter,
    host: str,
    port: int,
    serve: Callable[[Link], Awaitable[None]],
    delay_ms: float = 0.0,
) -> AsyncIterator[int]:
    """Accept links at ``host``:``port`` (0: any port); yield the port.

    Args:
        serve: has every link after its handshake.
        delay_ms: emulated one-way delay of what is sent over these.

    Raises:
        CannotListen: if the port is taken.
    """
    identity, loop = limiter.me.identity, asyncio.get_running_loop()

    async def take(request: web.Request) -> web.StreamResponse:
        link, response = await accept(request, identity.certificate_fingerprint, delay_ms)
        if await limiter.admits(link):
            cast(_Caller, request.protocol).come_in()
            await serve(link)
        return response

    app = web.Application()
    app.router.add_get(PATH, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            server = await loop.create_server(
                lambda: _Caller(cast(web.Server, runner.server), limiter, loop),
                host,
                port,
                ssl=identity.server_ssl_context(),
                ssl_handshake_timeout=handshake.HELLO_TIMEOUT_S,
            )
        except OSError as error:
            raise CannotListen(host, port, error.strerror or str(error)) from None
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


class _Caller(web.RequestHandler):
    """One connection.

    It is cut off if its handshake takes too long, and not read on if it sends too much before the
    handshake is over.
    """

    __slots__ = ("_ahead", "_held", "_limiter", "_ticket", "_timer")

    def __init__(
        self, server: web.Server, limiter: HandshakeLimiter, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._limiter = limiter
        self._ticket: HandshakeTicket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ahead = 0
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        address = (transport.get_extra_info("peername") or ("somebody",))[0]
        self._ticket = self._limiter.enter(address)
        if self._ticket is None:
            cast(asyncio.Transport, transport).abort()
        else:
            due = self._loop.time() + handshake.HELLO_TIMEOUT_S
            self._timer = self._loop.call_at(due, self._time_is_up, due)

    def _time_is_up(self, due: float) -> None:
        if self.transport is None:
            return
        if stood_still(due):
            self._timer = self._loop.call_later(CATCH_UP_S, self.transport.abort)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._ticket is not None and not self._ticket.over:
            self._ahead += len(data)
            if self._ahead > MAX_AHEAD and self.transport is not None:
                self._held = True
                self.transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_handshake()
        super().connection_lost(exc)

    def come_in(self) -> None:
        """Read on: the handshake is over."""
        self._end_handshake()
        # else aiohttp goes on by itself
        if self._held and self.transport is not None and not self._reading_paused:
            self.transport.resume_reading()

    def _end_handshake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._ticket is not None:
            self._ticket.end()
