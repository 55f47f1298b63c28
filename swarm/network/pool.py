"""From records to peers that answer: before a peer is used, its record is checked by a handshake or
a ping."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from swarm.network.dht.lookup import HasSpan
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import LinkClosed
from swarm.util.singleflight import SingleFlight
from swarm.util.tasks import end

MAX_CANDIDATES = 64  # peers that one search pings
PEERS_A_LAYER = 4  # that serve it; of these the one that serves most after it is pinged
# one address has over the next one: a computer behind NAT does not say that it cannot be dialled
HEAD_START_S = 1.0
# for a search as a whole, however many dead addresses a record has
REACH_TIMEOUT_S = 6.0

_BY_LOT = random.Random()

log = logging.getLogger(__name__)


S = TypeVar("S", bound=HasSpan)


def candidates(
    records: Sequence[S], at_most: int = MAX_CANDIDATES, rng: random.Random = _BY_LOT
) -> list[S]:
    """Return a random choice that is fair to every part of a model: one way through it after the
    other.

    So whole chains are among them if there are any, and mostly of few peers. The first records of a
    sorted list would all be of the first layers, and anyone may publish many of those.
    """
    left = rng.sample(records, len(records))
    chosen: list[S] = []
    while left and len(chosen) < at_most:
        way = _way_through(left)
        chosen += way
        taken = set(map(id, way))
        left = [record for record in left if id(record) not in taken]
    return chosen[:at_most]


def _way_through(records: Sequence[S]) -> list[S]:
    """Return peers one after the other, from the first served layer to the last; at each layer, of
    the first few the one that reaches farthest."""
    way: list[S] = []
    reached = 0
    while ahead := [record for record in records if record.last_layer > reached]:
        reached = max(reached, min(record.first_layer for record in ahead))
        here = [record for record in ahead if record.first_layer <= reached]
        farthest = max(here[:PEERS_A_LAYER], key=lambda record: record.last_layer)
        way.append(farthest)
        reached = farthest.last_layer
    return way


class Connections:
    """Open connections, one for each peer, kept for the next generation.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, dialer: Dialer, clock: Callable[[], float] = time.monotonic) -> None:
        self._dialer = dialer
        self._clock = clock
        self._open: dict[str, Connection] = {}
        self._asked_at: dict[str, float] = {}  # when each of these was asked for last
        self._closed = False
        self._tries: SingleFlight[tuple[str, tuple[str, ...], str], Connection | None] = (
            SingleFlight()
        )
        # One attempt at a time for each peer. A lock lives while a task holds it or waits for it.
        self._attempts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reach(self, records: Sequence[PeerRecord]) -> dict[str, Connection]:
        """Return connections, by peer id, to the peers that answer now.

        At most `MAX_CANDIDATES` are asked, for `REACH_TIMEOUT_S` at most.
        """
        attempts = [asyncio.create_task(self._try(record)) for record in candidates(records)]
        if not attempts:
            return {}
        try:
            done, _ = await asyncio.wait(attempts, timeout=REACH_TIMEOUT_S)
            reached = [
                connection for attempt in done if (connection := attempt.result()) is not None
            ]
        finally:
            await end(*attempts)
        return {connection.peer_id: connection for connection in reached}

    def has(self, record: PeerRecord) -> bool:
        """Whether there is a connection to this peer, at one of its addresses."""
        known = self._open.get(record.peer_id)
        return known is not None and not known.closed and known.link.address in record.addresses

    async def keep(self, peer_ids: Collection[str], lately_s: float = 0.0) -> None:
        """Close the connections to all other peers that no session uses.

        Args:
            lately_s: connections that were asked for so recently stay, so that concurrent searches
                do not close what another one has just found.
        """
        since = self._clock() - lately_s
        self._asked_at = {peer_id: at for peer_id, at in self._asked_at.items() if at > since}
        spared = {*peer_ids, *self._asked_at}
        idle = [
            peer_id
            for peer_id, connection in self._open.items()
            if peer_id not in spared and connection.idle
        ]
        others = [self._open.pop(peer_id) for peer_id in idle]
        await asyncio.gather(*(connection.close() for connection in others))

    async def drop(self, peer_id: str, why: str) -> None:
        """Close the connection to a peer at once, even if it is in use. Its users get ``why``."""
        connection = self._open.pop(peer_id, None)
        if connection is not None:
            await connection.close(why)

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(connection.close() for connection in self._open.values()))
        self._open.clear()

    async def _try(self, record: PeerRecord) -> Connection | None:
        """Return a connection, if the peer answers now.

        Concurrent callers share one attempt: if each sent its own ping, one after the other, the
        last ones would time out.
        """
        key = record.peer_id, record.addresses, record.certificate
        connection = await self._tries.do(key, lambda: self._attempt(record))
        if connection is not None:
            self._asked_at[record.peer_id] = self._clock()
        return connection

    async def _attempt(self, record: PeerRecord) -> Connection | None:
        lock = self._attempts.setdefault(record.peer_id, asyncio.Lock())
        async with lock:
            known = self._open.get(record.peer_id)
            if known is not None and self.has(record):
                # It may be in use: its heartbeat decides when it is dead, not one late answer.
                return known if await _answers(known) else None
            if known is not None:
                await self._open.pop(record.peer_id).close()
            return await self._dial(record)

    async def _dial(self, record: PeerRecord) -> Connection | None:
        """Return a new connection over the first address of the record that answers; better
        addresses get a head start."""
        attempts: list[asyncio.Task[Connection | None]] = []
        chosen: Connection | None = None
        left = list(record.addresses)
        try:
            while (
                not self._closed
                and chosen is None
                and (left or not all(attempt.done() for attempt in attempts))
            ):
                if left:
                    attempts.append(asyncio.create_task(self._connect(record, left.pop(0))))
                pending = [attempt for attempt in attempts if not attempt.done()]
                patience = HEAD_START_S if left else None
                await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                chosen = next(
                    (c for attempt in attempts if attempt.done() and (c := attempt.result())), None
                )
            if chosen is not None and not self._closed:
                self._open[record.peer_id] = chosen
            return self._open.get(record.peer_id)
        finally:
            await end(*attempts)
            for attempt in attempts:
                other = None if attempt.cancelled() else attempt.result()
                if other is not None and other is not self._open.get(record.peer_id):
                    await other.close()

    async def _connect(self, record: PeerRecord, address: str) -> Connection | None:
        try:  # the handshake proves as much as a ping
            return Connection(
                record.peer_id,
                await self._dialer.connect(address, record.certificate, record.peer_id),
            )
        except LinkClosed as error:
            log.info("peer ...%s: %s", record.peer_id[-8:], error)
            return None


async def _answers(connection: Connection) -> bool:
    try:
        await connection.ping()
    except LinkClosed as error:
        log.info("peer ...%s: %s", connection.peer_id[-8:], error)
        return False
    return True
