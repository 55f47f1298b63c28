"""The gateway's pages: chat, swarm and speed.

The pages are static files; two streams of events keep them live.

They rely on the rest of the gateway as follows:

- ``GET /v1/models`` lists the models to choose from.
- ``POST /v1/chat/completions`` takes ``stream`` and our own field ``explain: true``. Every chunk
  that carries text then has a field ``swarm`` beside ``choices``::

      {"pieces": [{"text": "4", "origin": "corrected", "instead_of": "5", "reason": "a number",
                   "key": true, "deficit_nats": 0.0}, ...]}

  It has one entry per token, with the fields of `swarm.outputs.Piece`. The texts of a chunk's
  pieces, joined, are its ``delta.content``. The first chunk, and the first after the chain has
  changed, has ``{"route": [{"peer_id": "12D3...", "layers": [0, 4], "rtt_ms": 41.5}, ...]}``. The
  chunk with ``finish_reason`` has the route and ``{"stats": {...}}``, as in `swarm.outputs.Stats`.
  A failure in mid-stream is ``{"error": {"message": ...}}``.
- For the speed page, every generation reports to a `Speedometer`: at its start
  ``run = speedometer.began(model)``; after each piece ``run.piece(piece)``,
  ``run.route(stream.route)`` and ``run.measured(stream.measured)``; at its end
  ``run.finished(stats)``, unless it failed, and ``run.ended()`` in any case.
- If API keys are set, ``/v1/*`` and ``/events/*`` answer 401 without
  ``Authorization: Bearer KEY``; the paths for which `is_open` is true stay open. The page then asks
  the user for a key, keeps it for its tab, and tries again.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from swarm.gateway.errors import ErrorReply
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.sse import EventStream, SlowReader
from swarm.gateway.watch import Watch
from swarm.util.tasks import end

FILES = Path(__file__).with_name("static")
STATIC = "/pages/"
PAGES = {"/": "chat.html", "/swarm": "swarm.html", "/speed": "speed.html"}
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"  # no text becomes HTML
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the browser revalidates each time, by the ETag
}

MAX_READERS = 64  # of events, all pages together: each holds a connection
TOO_MANY = ErrorReply(
    503,
    f"{MAX_READERS} pages are open already; close one, then load this one again",
    "server_error",
    "too_many_readers",
    retry_after_s=10,
)
SPEED_EVERY_S = 1.0


def is_open(path: str) -> bool:
    """Tell whether a path needs no API key: pages hold no data, only their events do."""
    return path in PAGES or path.startswith(STATIC)


def add_pages(app: web.Application, watch: Watch, speedometer: Speedometer) -> None:
    """Add the routes ``/``, ``/swarm``, ``/speed``, ``/pages/*`` and ``/events/{swarm,speed}``."""
    files = {
        file.relative_to(FILES).as_posix(): StaticFile.read(file)
        for file in sorted(FILES.rglob("*"))
        if file.suffix in TYPES
    }
    for path, name in PAGES.items():
        app.router.add_get(path, files[name].serve)
    for name, file in files.items():
        if name not in PAGES.values():
            app.router.add_get(STATIC + name, file.serve)
    readers = Readers()
    app.router.add_get("/events/swarm", partial(readers.serve, partial(_views, watch)))
    app.router.add_get("/events/speed", partial(readers.serve, partial(_speeds, speedometer)))
    app.on_shutdown.append(readers.close)


@dataclass(frozen=True)
class StaticFile:
    """A file of ours, kept in memory: they are few and small."""

    body: bytes
    content_type: str
    tag: str

    @classmethod
    def read(cls, file: Path) -> "StaticFile":
        body = file.read_bytes()
        return cls(body, TYPES[file.suffix], hashlib.sha256(body).hexdigest()[:16])

    async def serve(self, request: web.Request) -> web.Response:
        if any(tag.value == self.tag for tag in request.if_none_match or ()):
            response = web.Response(headers=HEADERS, status=304)
        else:
            response = web.Response(headers=HEADERS, body=self.body)
            response.content_type = self.content_type
            response.charset = "utf-8"
        response.etag = self.tag
        return response


States = Callable[[], AsyncGenerator[dict[str, Any], None]]


class Readers:
    """The open streams of events, `MAX_READERS` at most."""

    def __init__(self) -> None:
        self._reading: set[asyncio.Task[None]] = set()

    async def serve(self, states: States, request: web.Request) -> web.StreamResponse:
        """Send each state as an event until the reader leaves.

        A slow reader misses some states and gets the newest.
        """
        if len(self._reading) >= MAX_READERS:
            return TOO_MANY.response()
        stream = EventStream(request)
        reading = asyncio.create_task(_read(states, stream))
        self._reading.add(reading)
        try:
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.result()
        finally:
            await end(reading)
            self._reading.discard(reading)
        return stream.response

    async def close(self, _: web.Application) -> None:
        """End all streams, because the gateway stops."""
        await end(*self._reading)


async def _read(states: States, stream: EventStream) -> None:
    with suppress(ConnectionError, SlowReader):
        await stream.open()
        async with aclosing(states()) as sent:
            async for state in sent:
                await stream.send(state)


# Every state is sent, changed or not: silence shows a page that the gateway is gone.


async def _views(watch: Watch) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(watch.views()) as views:
        async for view in views:
            yield view.as_dict()


async def _speeds(speedometer: Speedometer) -> AsyncGenerator[dict[str, Any], None]:
    while True:
        yield speedometer.speed().as_dict()
        await asyncio.sleep(SPEED_EVERY_S)
