"""A web application at an address of this computer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from swarm.errors import SwarmError


@asynccontextmanager
async def site(
    app: web.Application, host: str, port: int, refusal: Callable[[str], SwarmError], **settings: Any
) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, of which 0 takes any.

    Args:
        refusal: makes the error to raise, of why the address is taken or not ours.
        settings: of `aiohttp.web.AppRunner`.
    """
    runner = web.AppRunner(app, access_log=None, **settings)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise refusal(error.strerror or str(error)) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
