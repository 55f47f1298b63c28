"""A peer: listens, enters the network, serves layers until it is told to stop, and leaves."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from peers.access.control import AccessControl, summary
from peers.access.entering import insist
from peers.access.limits import AccessLimits
from peers.access.listener import listening
from peers.access.reachability import AnnouncedAddresses, asked, own_address
from peers.access.twin import TwinSearch
from peers.compute.loader import Loader
from peers.events import Emit, PeerEvent
from peers.lifecycle import Lifecycle
from peers.offer import Offer, PeerFacts
from peers.ops.health_server import monitored
from peers.ops.metrics import PeerMetrics
from peers.options import PeerOptions, Prepared, prepare
from peers.placement.block_selection import BlockSelection
from peers.placement.membership import Membership
from peers.placement.neighbours import Neighbours
from peers.sessions.handler import Handler
from peers.sessions.limits import SessionLimits
from swarm.errors import DirectoryDown, SwarmError
from swarm.identity import Identity
from swarm.keylock import held
from swarm.model.span import Span
from swarm.network.dht.directory import Directory
from swarm.network.dht.publication import announce
from swarm.network.dht.records import REFRESH_INTERVAL_S, PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.util.tasks import end, within
from swarm.wire.handshake import LocalMember

FIRST_TRIES, FIRST_PAUSE_S = 4, 1.0  # to publish our record, before we give up
REFUSALS_S = 60.0  # between two lines about what was refused
WITHDRAW_TIMEOUT_S = 4.0  # the record expires by itself where this does not work

log = logging.getLogger(__name__)


async def serve(
    options: PeerOptions,
    stop: asyncio.Event,
    emit: Emit,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run a peer until ``stop`` is set.

    Args:
        emit: called with every event that concerns the operator.
        progress: called with (bytes done, bytes in all) while weights are loaded.

    Raises:
        SwarmError: for everything that an operator can put right.
    """
    identity = (
        Identity.load_or_create(options.key_file) if options.key_file else Identity.generate()
    )
    with held(identity.file, alone=True):
        prepared = await prepare(options)
        async with PeerServer(options, identity, prepared, emit, progress) as peer:
            await peer.run(stop)


class PeerServer:
    """One peer of a swarm: `start`, `run`, `stop`.

    ``async with`` starts it and, whatever happens, stops it.

    Args:
        emit: called with every event that concerns the operator.
        progress: called with (bytes done, bytes in all) while weights are loaded.
    """

    reach: AnnouncedAddresses  # since it listens
    directory: Directory  # since it has entered the network

    def __init__(
        self,
        options: PeerOptions,
        identity: Identity,
        prepared: Prepared,
        emit: Emit,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        checkpoint, network = prepared.checkpoint, options.network
        me = LocalMember(identity, network)
        self.facts = PeerFacts(identity, network.name, checkpoint, prepared.dtype, options.device)
        self.offer = Offer(options.layers or (0, 1))
        self._options = options
        self._prepared = prepared
        self._emit = emit
        self._limiter = HandshakeLimiter(me)
        self._dialer = Dialer(me, options.link_ms)
        self._handler = Handler(
            checkpoint.fingerprint,
            self._dialer,
            SessionLimits(checkpoint.max_positions),
            limits=AccessLimits(gateway_clients=options.gateway_clients),
        )
        self._neighbours = Neighbours(self._dialer)
        self._twins = TwinSearch(self._dialer)
        self._answer = self._twins.serving(self._handler.serve)
        self._lifecycle = Lifecycle(
            self.offer,
            self._handler,
            Loader(
                checkpoint,
                prepared.dtype,
                prepared.room,
                options.threads,
                progress,
                prepared.load,
            ),
            prepared.room,
            lambda: publish(self.directory, self.record),
            options.grace_s,
            emit,
            self._serving,
        )
        self._open = contextlib.AsyncExitStack()  # what `stop` closes, the latest first

    async def start(self) -> None:
        """Listen, and enter the network by the addresses at which others get through."""
        self._open.push_async_callback(self._dialer.close)
        self._open.push_async_callback(self._neighbours.close)
        self._open.push_async_callback(self._lifecycle.close)
        await self._listen()
        await self._watch()
        await self._open.enter_async_context(asked(self.reach, self._emit))
        # again: last words to clients travel over relays, too
        self._open.push_async_callback(self._handler.close)
        await self._enter()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve layers until ``stop`` is set; then let sessions end, for a while.

        Raises what the compute thread, or another task that should not end, dies of.
        """
        tasks = [asyncio.create_task(work) for work in self._work()]
        try:
            await _first_of(stop, *tasks)
            self._emit(PeerEvent("leaving", "leaving: no new sessions, the record is withdrawn"))
        finally:
            await end(*tasks)
        await self._lifecycle.leave()

    async def stop(self) -> None:
        """Withdraw the record and close what was opened, also after a `start` that failed."""
        await self._open.aclose()

    def record(self) -> PeerRecord:
        """Return what the directory is to have of this peer now. Raises `ConfigError`."""
        return self.offer.record(
            self.facts,
            self.reach.addresses,
            self._neighbours.announced,
            self._handler.sessions.queue_ms,
        )

    async def _listen(self) -> None:
        options = self._options
        port = await self._open.enter_async_context(
            listening(self._limiter, options.host, options.port, self._answer, options.link_ms)
        )
        self._open.push_async_callback(self._handler.close)
        self.reach = AnnouncedAddresses(
            options.network,
            options.announce or own_address(options.host, port),
            self._limiter,
            self._answer,
            exact=options.announce is not None,
            delay_ms=options.link_ms,
        )
        self.record()  # options that no record can carry are refused before a network is entered

    async def _watch(self) -> None:
        """Serve metrics, if the operator wants that."""
        if self._options.metrics is None:
            return
        watched = PeerMetrics(self._handler, self.offer, self.reach, self.facts.labels())
        url = await self._open.enter_async_context(monitored(watched, self._options.metrics))
        self._emit(PeerEvent("metrics", f"metrics are at {url}", {"url": url}))

    async def _enter(self) -> None:
        """Enter the DHT and find a way in; the record is withdrawn when the peer stops.

        Raises:
            KeyInUse: if another peer serves with our key.
            Unreachable: if there is no way in.
        """
        identity, options = self.facts.identity, self._options

        async def join() -> Directory:
            return await Directory.join(
                identity,
                options.network,
                host=options.host,
                client_mode=not self.reach.is_direct,
            )

        joined = await insist(join, self._emit)
        self.directory = await self._open.enter_async_context(joined)
        self._dialer.streams = self.directory.streams
        await self.reach.enter(self.directory)
        await self._twins.check(self.directory, self.record())
        self._open.push_async_callback(_withdraw, self.directory)

    def _work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """All that goes on while the peer runs; none of it ends by itself."""
        return (
            self._serve_layers(),
            self._keep_announced(),
            self._neighbours.run(self.directory, self.record),
            self.reach.keep(self.directory),
            self._twins.keep(self.directory, self.record),
            tell_refusals(self._handler.admission, self._emit),
        )

    async def _serve_layers(self) -> None:
        if self._options.layers is not None:
            await self._lifecycle.run(self._options.layers)
            return
        checkpoint, peer_id = self.facts.checkpoint, self.facts.identity.peer_id
        membership = Membership(
            self.directory, self._dialer, checkpoint.fingerprint, checkpoint.num_layers, peer_id
        )
        selection = BlockSelection(
            peer_id,
            self._prepared.cuts,
            self._prepared.capacity,
            membership,
            self._lifecycle.claim,
            random.Random(),
        )
        await self._lifecycle.run_free(selection, self._prepared.capacity)

    async def _keep_announced(self) -> None:
        """Keep the record alive, once there is one."""
        await self._lifecycle.known.wait()
        await asyncio.sleep(REFRESH_INTERVAL_S)
        await announce(self.directory, self.record)

    def _serving(self, span: Span) -> None:
        self._emit(self.offer.describe(self.facts, span, self.reach.addresses))
        if link_ms := self._options.link_ms:
            sentence = f"every message from here is held back {link_ms:g} ms: an emulated link"
            self._emit(PeerEvent("emulated_link", sentence, {"link_ms": link_ms}))

    async def __aenter__(self) -> "PeerServer":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


async def tell_refusals(
    admission: AccessControl, emit: Emit, interval_s: float = REFUSALS_S
) -> None:
    """Say one line for each interval in which something was refused, and a last one."""
    told = admission.refusals.copy()

    def tell() -> None:
        nonlocal told
        now = admission.refusals.copy()
        if refused := summary(told, now):
            sentence = f"refused in the last {interval_s:g} s or less: {refused}"
            emit(PeerEvent("refused", sentence, {"counts": dict(now - told)}))
        told = now

    try:
        while True:
            await asyncio.sleep(interval_s)
            tell()
    finally:
        tell()


async def publish(directory: Directory, record: Callable[[], PeerRecord]) -> None:
    """Publish a peer's first record.

    Where many peers start at once, the nodes that should store a record may not know each other
    yet, so it is tried `FIRST_TRIES` times. Raises `DirectoryDown`.
    """
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


async def _first_of(stop: asyncio.Event, *tasks: "asyncio.Task[None]") -> None:
    """Wait for ``stop``. A task that ends before, which none should, raises what it died of."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        await end(stopped)
