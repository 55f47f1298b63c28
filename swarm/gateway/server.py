"""The gateway's life: it listens, answers, and lets running answers end before it goes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from swarm.errors import CannotListen
from swarm.gateway.admission import PLACES, WAITING, Admission
from swarm.gateway.app import Gateway, refuse
from swarm.gateway.keys import Keys
from swarm.gateway.metrics import Metrics
from swarm.gateway.pages import add_pages
from swarm.gateway.prompts import Threads
from swarm.gateway.service import Engine, Service
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.watch import Watch
from swarm.terminal.signals import heeded, on_signals
from swarm.util.http import site

HOST, PORT = "127.0.0.1", 8000
GRACE_S = 10.0  # for running answers, when the gateway is told to stop
KEEPALIVE_S = 75.0  # that an idle connection is kept


@dataclass(frozen=True)
class Settings:
    """How to serve.

    ``port`` 0 takes any that is free; ``names`` are those of this host, beside its addresses.
    """

    host: str = HOST
    port: int = PORT
    keys: Keys = field(default_factory=Keys)
    names: frozenset[str] = frozenset()
    places: int = PLACES  # generations at once
    waiting: int = WAITING  # generations that may wait for a place
    grace_s: float = GRACE_S

    @property
    def open_to_all(self) -> bool:
        """Whether anybody who reaches this host may ask."""
        return not self.keys and not _is_local(self.host)


@asynccontextmanager
async def serving(engines: Sequence[Engine], settings: Settings) -> AsyncIterator[str]:
    """Serve while the context is open; gives the URL.

    In the end, running answers have `Settings.grace_s` seconds.

    Raises:
        CannotListen: if the address is taken or not ours.
        ConfigError: for two models of one name.
    """
    admission = Admission(settings.places, settings.waiting, models=len(engines))
    metrics, speedometer, threads = Metrics(admission), Speedometer(), Threads()
    service = Service(engines, admission, metrics, speedometer, threads)
    app = Gateway(service, metrics, threads, settings.keys, settings.names).app()
    async with AsyncExitStack() as life:
        life.enter_context(threads)
        watch = await life.enter_async_context(Watch(service.look))
        add_pages(app, watch, speedometer)
        opened = site(
            app,
            settings.host,
            settings.port,
            lambda why: CannotListen(settings.host, settings.port, why, "--host or --port"),
            refuse=refuse,
            auto_decompress=False,  # what packed bodies may unpack to is bounded step by step
            handler_cancellation=True,  # a reader who leaves ends what is written for them
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=settings.grace_s,
        )
        yield _url(settings.host, await life.enter_async_context(opened))


async def stopped() -> None:
    """Wait for a signal that asks to end: Ctrl-C, SIGTERM, or a terminal that is closed."""
    told = asyncio.Event()
    with on_signals(heeded(), lambda _: told.set()):
        await told.wait()


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    """Where to open it from this host."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
