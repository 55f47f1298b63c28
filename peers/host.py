"""A peer's life: load, measure, listen, announce, serve, drain."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from peers.budget import CacheBudget
from peers.handler import Handler
from peers.listener import listening
from peers.reach import Reach, asked, own_address
from peers.scheduler import Scheduler
from peers.speed import measure, tune_threads
from swarm import __version__
from swarm.config import Network
from swarm.errors import ConfigError, DirectoryDown, SwarmError
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.announcer import announce
from swarm.network.dialer import Dialer
from swarm.network.directory import Directory
from swarm.network.records import PeerRecord
from swarm.network.tasks import end, within
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.tensors import dtype_name

FIRST_TRIES, FIRST_PAUSE_S = 4, 1.0  # to publish our record, before we give up
WITHDRAW_TIMEOUT_S = 4.0  # the record expires by itself where this does not work

log = logging.getLogger(__name__)


class DoesNotFit(SwarmError):
    """The layers need more memory than the device has."""

    def __init__(self, layers: tuple[int, int], device: str) -> None:
        super().__init__(layers, device)
        self.layers, self.device = layers, device

    def __str__(self) -> str:
        first, last = self.layers
        return (
            f"layers {first}:{last} do not fit the memory of {self.device}; "
            f"serve fewer layers, such as --layers {first}:{first + max(1, (last - first) // 2)}"
        )


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
    threads: int | None = None  # of the CPU; None: as many as measure fastest
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
    identity = Identity.load_or_create(options.key_file) if options.key_file else Identity.generate()
    try:
        checkpoint, span, tokens_per_second = await _load(options, stop, progress)
    except _Stopped:
        return
    budget = CacheBudget(options.cache_tokens)
    scheduler = Scheduler(span)
    async with contextlib.AsyncExitStack() as life:
        computing = await life.enter_async_context(_owned(scheduler.run()))
        dialer = Dialer(options.link_ms)
        life.push_async_callback(dialer.close)
        handler = Handler(scheduler, budget, checkpoint.fingerprint, dialer, checkpoint.max_positions)
        port = await life.enter_async_context(
            listening(identity, options.host, options.port, handler.serve, options.link_ms)
        )
        life.push_async_callback(handler.close)
        reach = Reach(
            options.network,
            options.announce or own_address(options.host, port),
            identity.certificate_fingerprint,
            handler.serve,
            exact=options.announce is not None,
            delay_ms=options.link_ms,
        )

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
                addresses=reach.addresses,
                certificate=identity.certificate_fingerprint,
                tokens_per_second=tokens_per_second,
                free_cache_tokens=budget.free_tokens,
                state="online",
                software=__version__,
                protocol=PROTOCOL_VERSION,
            )

        _check(record)
        await life.enter_async_context(asked(reach, say))
        life.push_async_callback(handler.close)  # again: what clients are told travels over relays, too
        entering = Directory.join(identity, options.network, host=options.host, client_mode=not reach.is_direct)
        directory = await life.enter_async_context(await entering)
        dialer.streams = directory.streams
        await reach.enter(directory)
        life.push_async_callback(_withdraw, directory)
        await _publish(directory, record())  # whoever reads that we serve can find us
        announcing = await life.enter_async_context(_owned(announce(directory, record)))
        reaching = await life.enter_async_context(_owned(reach.keep(directory)))
        say(
            f"serving layers {span.first}:{span.last} of {checkpoint.num_layers} of {checkpoint.name} "
            f"({span.nbytes / 1e6:.0f} MB, {options.device}, {tokens_per_second:.0f} tokens/s) "
            f"at {' and '.join(reach.addresses)} as {identity.peer_id}"
        )
        if options.link_ms:
            say(f"every message from here is held back {options.link_ms:g} ms: an emulated link")
        await _first_of(stop, computing, announcing, reaching)
        say("leaving: no new sessions, the record is withdrawn")
        handler.draining = True


class _Stopped(Exception):
    """The operator did not want to wait for the weights."""


async def _load(
    options: Options, stop: asyncio.Event, progress: Callable[[int, int], None] | None
) -> tuple[Checkpoint, Span, float]:
    """Checkpoint, span and its speed, in a thread. A set ``stop`` ends it at the next tensor."""

    def report(done_bytes: int, total_bytes: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            progress(done_bytes, total_bytes)

    def load() -> tuple[Checkpoint, Span, float]:
        checkpoint = Checkpoint.open(options.model)
        dtype = options.dtype or (torch.float32 if options.device.type == "cpu" else checkpoint.config.dtype)
        try:
            span = Span.load(checkpoint, *options.layers, dtype=dtype, device=options.device, progress=report)
            speed = _speed(span, options)
        except torch.OutOfMemoryError:
            raise DoesNotFit(options.layers, str(options.device)) from None
        _ = checkpoint.fingerprint  # reads all weights of a local folder, so not on the event loop
        return checkpoint, span, speed

    return await asyncio.get_running_loop().run_in_executor(None, load)


def _speed(span: Span, options: Options) -> float:
    """Tokens per second of the span, with the CPU threads that were asked for or are best."""
    if options.device.type == "cpu" and not options.threads:
        return tune_threads(span)
    if options.threads:
        torch.set_num_threads(options.threads)
    return measure(span)


def _check(record: Callable[[], PeerRecord]) -> None:
    """Raises `ConfigError` if what we would announce is no valid record, which only our options can cause."""
    try:
        record()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "record"
        raise ConfigError(field, f"{first['input']!r} cannot be announced ({first['msg']})") from None


async def _first_of(stop: asyncio.Event, *tasks: "asyncio.Task[None]") -> None:
    """Wait for ``stop``. A task that ends before, which none of them should, raises what it died of."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        await end(stopped)


@contextlib.asynccontextmanager
async def _owned(work: Coroutine[object, object, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a coroutine beside; it is cancelled, and its end awaited, on the way out."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await end(task)


async def _publish(directory: Directory, record: PeerRecord) -> None:
    """Where many start at once, the nodes that should store a record may not know each other yet."""
    for _ in range(FIRST_TRIES - 1):
        try:
            return await directory.publish(record)
        except DirectoryDown as error:
            log.warning("our record was not published, trying again: %s", error)
            await asyncio.sleep(FIRST_PAUSE_S)
    await directory.publish(record)


async def _withdraw(directory: Directory) -> None:
    try:
        await within(WITHDRAW_TIMEOUT_S, directory.withdraw())
    except (SwarmError, asyncio.TimeoutError) as error:
        log.warning("our record could not be withdrawn and will expire by itself: %s", error)
