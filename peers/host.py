"""A peer's life: load, measure, listen, announce, serve, drain."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from aiohttp import web

from peers.budget import CacheBudget
from peers.handler import Handler
from peers.scheduler import Scheduler
from peers.span import Span, Work
from swarm import __version__
from swarm.config import Network
from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.network.announcer import announce
from swarm.network.directory import Directory
from swarm.network.link import PATH, Dialer, accept
from swarm.network.records import PeerRecord
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.tensors import dtype_name

STOP_TIMEOUT_S = 5.0  # for withdrawing and for saying goodbye to clients
MEASURED_STEPS = 16

log = logging.getLogger(__name__)


class CannotListen(SwarmError):
    """The port is taken, or not ours to take."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(host, port, why)
        self.host, self.port, self.why = host, port, why

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port} ({self.why}); give another --port, or 0 for any"


@dataclass(frozen=True)
class Options:
    """What `swarm-peer join` was asked to do."""

    model: str
    layers: tuple[int, int]
    network: Network
    key_file: Path | None  # None: a new identity for this run only
    host: str  # to listen on
    port: int  # 0: any
    announce: str | None  # "host:port" that others can reach, if it is not what we listen on
    device: torch.device
    dtype: torch.dtype | None  # None: the checkpoint's on a GPU, float32 on a CPU
    cache_tokens: int
    link_ms: float = 0.0  # emulated one-way delay of what this peer sends


async def serve(
    options: Options,
    stop: asyncio.Event,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Live until ``stop`` is set.

    Args:
        say: told, in sentences, what an operator wants to know.
        progress: called with (bytes done, bytes in all) while weights are loaded.

    Raises:
        SwarmError: for everything that an operator can put right.
    """
    loop = asyncio.get_running_loop()
    identity = Identity.load_or_create(options.key_file) if options.key_file else Identity.generate()
    checkpoint = await loop.run_in_executor(None, Checkpoint.open, options.model)
    span = await loop.run_in_executor(None, partial(_load, checkpoint, options, progress))
    tokens_per_second = await loop.run_in_executor(None, measure, span)
    budget = CacheBudget(options.cache_tokens)
    scheduler = Scheduler(span)
    async with contextlib.AsyncExitStack() as life:
        await life.enter_async_context(_owned(scheduler.run()))
        dialer = Dialer(options.link_ms)
        life.push_async_callback(dialer.close)
        handler = Handler(scheduler, budget, checkpoint.fingerprint, dialer)
        port = await life.enter_async_context(_listening(options, identity, handler))
        life.push_async_callback(handler.close)
        address = options.announce or f"{_reachable(options.host)}:{port}"
        directory = await life.enter_async_context(await Directory.join(identity, options.network, host=options.host))

        def record() -> PeerRecord:
            return PeerRecord(
                peer_id=identity.peer_id,
                network=options.network.name,
                model=checkpoint.name,
                fingerprint=checkpoint.fingerprint,
                model_layers=checkpoint.num_layers,
                first_layer=span.first,
                last_layer=span.last,
                dtype=dtype_name(span.dtype),
                addresses=(address,),
                certificate=identity.certificate_fingerprint,
                tokens_per_second=tokens_per_second,
                free_cache_tokens=budget.free_tokens,
                state="online",
                software=__version__,
                protocol=PROTOCOL_VERSION,
            )

        life.push_async_callback(_withdraw, directory)
        await life.enter_async_context(_owned(announce(directory, record)))
        say(
            f"serving layers {span.first}:{span.last} of {checkpoint.num_layers} of {checkpoint.name} "
            f"({span.nbytes / 1e6:.0f} MB, {options.device}, {tokens_per_second:.0f} tokens/s) "
            f"at {address} as {identity.peer_id}"
        )
        if options.link_ms:
            say(f"every message from here is held back {options.link_ms:g} ms: an emulated link")
        await stop.wait()
        say("leaving: no new sessions, the record is withdrawn")
        handler.draining = True


def measure(span: Span) -> float:
    """Tokens per second of plain decoding through the span, one session, by the median of a few steps."""
    cache = span.new_cache()
    times = []
    for position in range(MEASURED_STEPS):
        one = (
            torch.zeros(1, dtype=torch.long) if span.first == 0 else torch.zeros(1, span.hidden_size, dtype=span.dtype)
        )
        started = time.perf_counter()
        span.forward([Work(cache, position, one)])
        if span.device.type == "cuda":
            torch.cuda.synchronize(span.device)
        times.append(time.perf_counter() - started)
    return 1.0 / sorted(times)[len(times) // 2]


def _load(checkpoint: Checkpoint, options: Options, progress: Callable[[int, int], None] | None) -> Span:
    dtype = options.dtype or (torch.float32 if options.device.type == "cpu" else checkpoint.config.dtype)
    return Span.load(checkpoint, *options.layers, dtype=dtype, device=options.device, progress=progress)


@contextlib.asynccontextmanager
async def _owned(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run a coroutine beside; it is cancelled, and its end awaited, on the way out."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def _listening(options: Options, identity: Identity, handler: Handler) -> AsyncIterator[int]:
    """Take links on ``options.host``; yields the port."""

    async def take(request: web.Request) -> web.StreamResponse:
        link, response = await accept(request, options.link_ms)
        await handler.serve(link)
        return response

    app = web.Application()
    app.router.add_get(PATH, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=identity.server_ssl_context())
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(options.host, options.port, error.strerror or str(error)) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _withdraw(directory: Directory) -> None:
    try:
        await asyncio.wait_for(directory.withdraw(), STOP_TIMEOUT_S)
    except (SwarmError, asyncio.TimeoutError) as error:
        log.warning("our record could not be withdrawn and will expire by itself: %s", error)


def _reachable(host: str) -> str:
    """The address of ours that others can dial: the one by which we would reach the internet, if we listen on all."""
    if host != "0.0.0.0":
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks for the route (RFC 5737 test address)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
