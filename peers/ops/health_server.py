"""A small web server that says whether a peer or bootstrap node is up, serves, and how it does."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder

from swarm import __version__
from swarm.errors import CannotListen
from swarm.util.http import site

KEEPALIVE_S = 15.0  # of a connection without requests
SHUTDOWN_S = 1.0


class ListenAddress(NamedTuple):
    """ListenAddress to listen."""

    host: str
    port: int  # 0: any


class Watched(Protocol):
    """The program that is watched.

    Attributes:
        ready: it does what it is there for.
        state: in one word.
    """

    @property
    def ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    async def look(self) -> None:
        """Refresh what is read afterwards."""
        ...

    def collect(self) -> Iterator[Metric]: ...


@contextlib.asynccontextmanager
async def monitored(watched: Watched, where: ListenAddress) -> AsyncIterator[str]:
    """Answer ``/metrics``, ``/health`` and ``/ready``; yield the URL of the first.

    ``/health`` is 200 as long as the program runs, ``/ready`` is 503 while it is not ready.

    Raises:
        CannotListen: if the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(watched)
    ProcessCollector(registry=registry)

    async def metrics(request: web.Request) -> web.Response:
        await watched.look()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "up", "version": __version__})

    async def ready(_: web.Request) -> web.Response:
        await watched.look()
        return web.json_response({"state": watched.state}, status=200 if watched.ready else 503)

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/health", health), web.get("/ready", ready)]
    )

    def refusal(why: str) -> CannotListen:
        return CannotListen(where.host, where.port, why, "--metrics")

    opened = site(
        app,
        where.host,
        where.port,
        refusal,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=KEEPALIVE_S,
    )
    async with opened as port:
        yield f"http://{where.host}:{port}/metrics"
