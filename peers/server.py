"""A peer: listens, enters the network, and lives its life there until it is told to stop."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from peers.access.admission import Admission, summary
from peers.access.entering import insist
from peers.access.limits import Limits
from peers.access.listener import listening
from peers.access.reachability import Reach, asked, own_address
from peers.access.twin import TwinSearch
from peers.compute.loader import Loader
from peers.compute.memory import Memory, Room, in_words
from peers.events import News, Say
from peers.lifecycle import Life, Offer
from peers.ops.health_server import Where, monitored
from peers.ops.metrics import PeerMetrics
from peers.placement.membership import Census
from peers.placement.neighbours import Neighbours
from peers.sessions.handler import Handler
from peers.sessions.session import SessionLimits
from swarm import __version__
from swarm.config import Network
from swarm.errors import ConfigError, DirectoryDown, SpanError, SwarmError
from swarm.identity import Identity
from swarm.keylock import held
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import Quantization
from swarm.model.rehearsal import rehearsed
from swarm.model.span import Span
from swarm.network.dht.announcer import announce
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import REFRESH_INTERVAL_S, PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import Door
from swarm.util.tasks import end, within
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.handshake import Member
from swarm.wire.tensors import dtype_name

FIRST_TRIES, FIRST_PAUSE_S = 4, 1.0  # to publish our record, before we give up
REFUSALS_S = 60.0  # between two lines about what was refused
WITHDRAW_TIMEOUT_S = 4.0  # the record expires by itself where this does not work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What `swarm-peer join` was asked to do."""

    model: str
    layers: tuple[int, int] | None  # None: those that the swarm needs most
    network: Network
    key_file: Path | None  # None: a new identity for this run only
    host: str  # to listen on
    port: int  # 0: any
    announce: str | None  # "host:port" that others can reach, if it is not what we listen on
    device: torch.device
    dtype: torch.dtype | None  # None: the checkpoint's on a GPU, float32 on a CPU
    quantization: Quantization | None = None  # of the layers' weights
    cache_tokens: int | None = None  # None: as many as there is room for, up to a default
    memory: int | None = None  # bytes that may be used; None: what is free
    max_layers: int | None = None  # where the swarm's need chooses them
    grace_s: float = 5.0  # for sessions, before they have to go on elsewhere
    gateway_clients: int = Limits.gateway_clients  # that one gateway may ask for
    threads: int | None = None  # of the CPU; None: as many as measure fastest
    link_ms: float = 0.0  # emulated one-way delay of what this peer sends
    metrics: Where | None = None  # for those who watch over this peer


async def serve(
    options: Options,
    stop: asyncio.Event,
    say: Say,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Live until ``stop`` is set.

    Args:
        say: told what an operator wants to know.
        progress: called with (bytes done, bytes in all) while weights are loaded.

    Raises:
        SwarmError: for everything that an operator can put right.
    """
    identity = (
        Identity.load_or_create(options.key_file) if options.key_file else Identity.generate()
    )
    with held(identity.file, alone=True):
        await _serve(options, identity, stop, say, progress)


async def _serve(
    options: Options,
    identity: Identity,
    stop: asyncio.Event,
    say: Say,
    progress: Callable[[int, int], None] | None,
) -> None:
    """`serve`, under this identity."""
    checkpoint, dtype, room = await asyncio.get_running_loop().run_in_executor(
        None, _prepare, options
    )
    capacity = (
        min(room.capacity(), options.max_layers or room.model_layers)
        if options.layers is None
        else 0
    )
    async with contextlib.AsyncExitStack() as stack:
        me = Member(identity, options.network)
        dialer, door = Dialer(me, options.link_ms), Door(me)
        stack.push_async_callback(dialer.close)
        limits = Limits(gateway_clients=options.gateway_clients)
        handler = Handler(
            checkpoint.fingerprint, dialer, SessionLimits(checkpoint.max_positions), limits=limits
        )
        offer = Offer(options.layers or (0, 1))
        neighbours = Neighbours(dialer)
        stack.push_async_callback(neighbours.close)
        twins = TwinSearch(dialer)
        answer = twins.serving(handler.serve)

        def record() -> PeerRecord:
            return PeerRecord(
                peer_id=identity.peer_id,
                network=options.network.name,
                model=checkpoint.name,
                fingerprint=checkpoint.fingerprint,
                model_layers=checkpoint.num_layers,
                first_layer=offer.layers[0],
                last_layer=offer.layers[1],
                dtype=dtype_name(dtype),
                addresses=reach.addresses,
                certificate=identity.certificate_fingerprint,
                tokens_per_second=offer.tokens_per_second,
                queue_ms=handler.sessions.queue_ms,
                neighbours=neighbours.announced,
                free_cache_tokens=offer.budget.free_tokens,
                state=offer.state,
                software=__version__,
                protocol=PROTOCOL_VERSION,
            )

        def serving(span: Span) -> None:
            sentence = (
                f"serving layers {span.first}:{span.last} of {checkpoint.num_layers} of"
                f" {checkpoint.name} ({in_words(span.nbytes)}, {options.device},"
                f" {offer.tokens_per_second:.0f} tokens/s, cache for {offer.budget.total_tokens}"
                f" tokens) at {' and '.join(reach.addresses)} as {identity.peer_id}"
            )
            facts = {
                "peer_id": identity.peer_id,
                "model": checkpoint.name,
                "fingerprint": checkpoint.fingerprint,
                "model_layers": checkpoint.num_layers,
                "layers": (span.first, span.last),
                "weights_bytes": span.nbytes,
                "device": str(options.device),
                "dtype": dtype_name(dtype),
                "tokens_per_second": offer.tokens_per_second,
                "cache_tokens": offer.budget.total_tokens,
                "addresses": reach.addresses,
            }
            say(News("serving", sentence, facts))
            if options.link_ms:
                sentence = (
                    f"every message from here is held back {options.link_ms:g} ms: an emulated link"
                )
                say(News("emulated_link", sentence, {"link_ms": options.link_ms}))

        life = Life(
            offer,
            handler,
            Loader(checkpoint, dtype, room, options.threads, progress),
            room,
            lambda: publish(directory, record),
            options.grace_s,
            say,
            serving,
        )
        stack.push_async_callback(life.close)
        port = await stack.enter_async_context(
            listening(door, options.host, options.port, answer, options.link_ms)
        )
        stack.push_async_callback(handler.close)
        reach = Reach(
            options.network,
            options.announce or own_address(options.host, port),
            door,
            answer,
            exact=options.announce is not None,
            delay_ms=options.link_ms,
        )
        _check(record)
        if options.metrics is not None:
            facts = {
                "model": checkpoint.name,
                "dtype": dtype_name(dtype),
                "device": options.device.type,
            }
            watched = PeerMetrics(handler, offer, reach, {**facts, "network": options.network.name})
            url = await stack.enter_async_context(monitored(watched, options.metrics))
            say(News("metrics", f"metrics are at {url}", {"url": url}))
        await stack.enter_async_context(asked(reach, say))
        # again: what clients are told travels over relays, too
        stack.push_async_callback(handler.close)

        def enter() -> Awaitable[Directory]:
            client_mode = not reach.is_direct
            return Directory.join(
                identity, options.network, host=options.host, client_mode=client_mode
            )

        directory = await stack.enter_async_context(await insist(enter, say))
        dialer.streams = directory.streams
        await reach.enter(directory)
        await twins.check(directory, record())
        stack.push_async_callback(_withdraw, directory)
        if options.layers is None:
            census = Census(
                directory, dialer, checkpoint.fingerprint, checkpoint.num_layers, identity.peer_id
            )
            work = life.run_free(identity.peer_id, census, capacity, random.Random())
        else:
            work = life.run(options.layers)
        living = await stack.enter_async_context(_owned(work))
        announcing = await stack.enter_async_context(
            _owned(_announce(life.known, directory, record))
        )
        measuring = await stack.enter_async_context(_owned(neighbours.run(directory, record)))
        reaching = await stack.enter_async_context(_owned(reach.keep(directory)))
        searching = await stack.enter_async_context(_owned(twins.keep(directory, record)))
        await stack.enter_async_context(_owned(_tell_refusals(handler.admission, say)))
        await _first_of(stop, living, announcing, measuring, reaching, searching)
        say(News("leaving", "leaving: no new sessions, the record is withdrawn"))
        await end(living, announcing, measuring, reaching, searching)
        await life.leave()


def _prepare(options: Options) -> tuple[Checkpoint, torch.dtype, Room]:
    """In a thread: the fingerprint of a local folder reads all its weights.

    Raises `DoesNotFit`, among others.
    """
    if options.quantization is not None:
        options.quantization.check(options.device)
    checkpoint = Checkpoint.open(options.model, options.quantization)
    dtype = options.dtype or (
        torch.float32 if options.device.type == "cpu" else checkpoint.config.dtype
    )
    rehearsed(checkpoint)
    room = Room.measure(
        checkpoint, dtype, Memory(options.device, options.memory), options.cache_tokens
    )
    if options.layers is not None:
        first, last = options.layers
        if not 0 <= first < last <= checkpoint.num_layers:
            raise SpanError(
                first, last, f"{checkpoint.name} has the layers [0, {checkpoint.num_layers})"
            )
        room.check(options.layers)
    _ = checkpoint.fingerprint
    return checkpoint, dtype, room


async def _announce(
    known: asyncio.Event, directory: Directory, record: Callable[[], PeerRecord]
) -> None:
    """Keep the record alive, once there is one."""
    await known.wait()
    await asyncio.sleep(REFRESH_INTERVAL_S)
    await announce(directory, record)


async def _tell_refusals(admission: Admission, say: Say) -> None:
    """One line for each minute in which something was refused, and a last one."""
    told = admission.refusals.copy()

    def tell() -> None:
        nonlocal told
        now = admission.refusals.copy()
        if refused := summary(told, now):
            sentence = f"refused in the last {REFUSALS_S:g} s or less: {refused}"
            say(News("refused", sentence, {"counts": dict(now - told)}))
        told = now

    try:
        while True:
            await asyncio.sleep(REFUSALS_S)
            tell()
    finally:
        tell()


def _check(record: Callable[[], PeerRecord]) -> None:
    """Raises `ConfigError` if what we would announce is no valid record, which only our options can
    cause."""
    try:
        record()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "record"
        raise ConfigError(
            field, f"{first['input']!r} cannot be announced ({first['msg']})"
        ) from None


async def _first_of(stop: asyncio.Event, *tasks: "asyncio.Task[None]") -> None:
    """Wait for ``stop``.

    A task that ends before, which none of them should, raises what it died of.
    """
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


async def publish(directory: Directory, record: Callable[[], PeerRecord]) -> None:
    """Where many start at once, the nodes that should store a record may not know each other
    yet."""
    for _ in range(FIRST_TRIES - 1):
        try:
            return await directory.publish(record())
        except DirectoryDown as error:
            log.warning("our record was not published, trying again: %s", error)
            await asyncio.sleep(FIRST_PAUSE_S)
    await directory.publish(record())


async def _withdraw(directory: Directory) -> None:
    try:
        await within(WITHDRAW_TIMEOUT_S, directory.withdraw())
    except (SwarmError, asyncio.TimeoutError) as error:
        log.warning("our record could not be withdrawn and will expire by itself: %s", error)
