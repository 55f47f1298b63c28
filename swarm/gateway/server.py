"""The gateway's life: it listens, answers, and lets running answers end before it stops."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from swarm.errors import CannotListen
from swarm.gateway.admission import PLACES, WAITING, AdmissionControl
from swarm.gateway.app import Gateway, refuse
from swarm.gateway.keys import ApiKeys, Owners
from swarm.gateway.metrics import Metrics
from swarm.gateway.pages import add_pages
from swarm.gateway.prompts import ParserThreads
from swarm.gateway.service import Engine, Service
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.watch import Watch
from swarm.terminal.signals import on_signals, stop_signals
from swarm.util.http import site

HOST = "127.0.0.1"
PORT = 8000
GRACE_S = 10.0  # for running answers, when the gateway stops
KEEPALIVE_S = 75.0  # that an idle connection is kept


@dataclass(frozen=True)
class Settings:
    """Settings of a gateway."""

    host: str = HOST
    port: int = PORT  # 0 takes any free one
    keys: ApiKeys = field(default_factory=ApiKeys)
    names: frozenset[str] = frozenset()  # of this host, beside its addresses
    places: int = PLACES  # generations at once
    waiting: int = WAITING  # generations that may wait for a place
    grace_s: float = GRACE_S
    tool_parser: str | None = None  # how models write calls; None: as their templates tell
    strict: bool = False  # refuse unknown fields, instead of ignoring and naming them
    remember: bool = True  # earlier texts, to draft later ones of the same API key from them

    @property
    def open_to_all(self) -> bool:
        """Whether everyone who reaches this host may use the gateway."""
        return not self.keys and not _is_local(self.host)

    @property
    def owners(self) -> Owners:
        """Whose the texts of a request are."""
        return Owners(self.keys, _is_local(self.host))


@asynccontextmanager
async def serving(engines: Sequence[Engine], settings: Settings) -> AsyncIterator[str]:
    """Serve while the context is open, and yield the URL.

    At the end, running answers have `Settings.grace_s` seconds to finish.

    Raises:
        CannotListen: if the address is taken, or not one of this host.
        ConfigError: for two models of one name.
    """
    admission = AdmissionControl(settings.places, settings.waiting, models=len(engines))
    metrics = Metrics(admission)
    speedometer = Speedometer()
    threads = ParserThreads()
    service = Service(engines, admission, metrics, speedometer, threads, remember=settings.remember)
    gateway = Gateway(
        service,
        metrics,
        threads,
        settings.keys,
        settings.owners,
        settings.names,
        settings.strict,
        settings.tool_parser,
    )
    app = gateway.app()
    async with AsyncExitStack() as stack:
        stack.enter_context(threads)
        watch = await stack.enter_async_context(Watch(service.look))
        add_pages(app, watch, speedometer)
        opened = site(
            app,
            settings.host,
            settings.port,
            lambda why: CannotListen(settings.host, settings.port, why, "--host or --port"),
            refuse=refuse,
            auto_decompress=False,  # `Intake` decompresses, and bounds the result step by step
            handler_cancellation=True,  # a reader who leaves ends their generations
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=settings.grace_s,
        )
        yield _url(settings.host, await stack.enter_async_context(opened))


async def stopped() -> None:
    """Wait for a signal to stop: Ctrl-C, SIGTERM, or the end of the terminal."""
    signalled = asyncio.Event()
    with on_signals(stop_signals(), lambda _: signalled.set()):
        await signalled.wait()


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    """Return the URL under which this host reaches the gateway."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
