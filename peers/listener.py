"""The port of a peer, where direct links come in."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.network.link import Link
from swarm.network.websocket import PATH, accept


class CannotListen(SwarmError):
    """The port is taken, or not ours to take."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(host, port, why)
        self.host, self.port, self.why = host, port, why

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port} ({self.why}); give another --port, or 0 for any"


@contextlib.asynccontextmanager
async def listening(
    identity: Identity, host: str, port: int, serve: Callable[[Link], Awaitable[None]], delay_ms: float = 0.0
) -> AsyncIterator[int]:
    """Take links at ``host``:``port`` (0: any port) and hand each to ``serve``; yields the port.

    Raises:
        CannotListen: if the port is taken.
    """

    async def take(request: web.Request) -> web.StreamResponse:
        link, response = await accept(request, delay_ms)
        await serve(link)
        return response

    app = web.Application()
    app.router.add_get(PATH, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=identity.server_ssl_context())
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(host, port, error.strerror or str(error)) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
