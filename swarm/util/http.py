"""A web application at an address of this computer.

aiohttp answers some requests before any handler of the application: malformed ones, unknown paths,
expectations that it cannot meet. Here they too are answered in the application's own words, without
the name of any software.
"""

import asyncio
import http
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from swarm.errors import SwarmError

# the server header of every answer: without a version, which would tell attackers what to try
SERVER = "swarm"
BACKLOG = 128  # connections that the system holds until they are taken

# a status, and why in a few words of ours, as an answer
Refuse = Callable[[int, str], web.Response]

log = logging.getLogger(__name__)


def refuse_in_text(status: int, why: str) -> web.Response:
    """Answer in plain text."""
    return web.Response(status=status, text=f"{status} {why}\n")


class _Connection(web.RequestHandler):
    """One connection, which answers requests that do not reach the application."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read (400) or whose handler failed.

        The connection ends with it.
        """
        if status >= 500:
            log.error("a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        answer = self._refuse(
            status, _why(exc) if isinstance(exc, HttpProcessingError) else _reason(status)
        )
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that aiohttp has made itself is replaced."""
        if isinstance(resp, web.HTTPException):
            told = self._refuse(resp.status, _reason(resp.status))
            if "Allow" in resp.headers:
                told.headers["Allow"] = resp.headers["Allow"]
            resp = told
        if not resp.prepared:
            resp.headers["Server"] = SERVER
        return await super().finish_response(request, resp, start_time)


@asynccontextmanager
async def site(
    app: web.Application,
    host: str,
    port: int,
    refusal: Callable[[str], SwarmError],
    *,
    refuse: Refuse = refuse_in_text,
    handler_cancellation: bool = False,
    shutdown_timeout: float = 60.0,
    **settings: Any,
) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, of which 0 takes any.

    Args:
        refusal: makes the error to raise, of why the address is taken or not ours.
        refuse: answers for the application where it is not asked.
        handler_cancellation: whether a handler is cancelled when its client leaves.
        shutdown_timeout: seconds for running answers at the end.
        settings: of `aiohttp.web.RequestHandler`.
    """
    runner = web.AppRunner(
        app, handler_cancellation=handler_cancellation, shutdown_timeout=shutdown_timeout
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # it is set up
    try:
        try:
            listener = await asyncio.get_running_loop().create_server(
                lambda: _Connection(server, refuse, access_log=None, **settings),
                host,
                port,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise refusal(error.strerror or str(error)) from None
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def _why(error: HttpProcessingError) -> str:
    """Why a request cannot be read.

    The parser's own words are for programmers, and quote what it met.
    """
    if isinstance(error, LineTooLong):
        return "a line of the request's head is too long"
    return "the request is no HTTP that can be read"


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "refused"
