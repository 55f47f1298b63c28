"""From records to peers that answer: what the DHT promises is checked by a ping before it is used."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from swarm.network.connection import Connection
from swarm.network.link import Dialer, LinkClosed
from swarm.network.records import PeerRecord
from swarm.network.tasks import end

MAX_CANDIDATES = 64  # peers that one search pings
REACH_TIMEOUT_S = 6.0  # for a search as a whole: a record with many dead addresses keeps nobody waiting longer

log = logging.getLogger(__name__)


class HasFirstLayer(Protocol):
    @property
    def first_layer(self) -> int: ...


R = TypeVar("R", bound=HasFirstLayer)


def candidates(
    records: Sequence[R], at_most: int = MAX_CANDIDATES, lot: Callable[[Sequence[R], int], list[R]] = random.sample
) -> list[R]:
    """A choice that is fair to every part of a model: one peer of each first layer after the other, by lot.

    The first records of a sorted list would all be of the first layers, and anybody may publish many of those.
    """
    by_layer: defaultdict[int, list[R]] = defaultdict(list)
    for record in lot(records, len(records)):
        by_layer[record.first_layer].append(record)
    turns = zip_longest(*by_layer.values())
    return [record for turn in turns for record in turn if record is not None][:at_most]


class Connections:
    """The client's open connections, one a peer, kept for the next generation."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._open: dict[str, Connection] = {}
        self._closed = False
        # One attempt a peer at a time. A lock lives as long as somebody holds it or waits for it.
        self._attempts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reach(self, records: Sequence[PeerRecord]) -> dict[str, Connection]:
        """Connections, by peer id, to those peers that answer a ping now; the others are left out.

        At most `MAX_CANDIDATES` are asked, and none is waited for longer than `REACH_TIMEOUT_S`.
        """
        attempts = [asyncio.create_task(self._try(record)) for record in candidates(records)]
        if not attempts:
            return {}
        try:
            done, _ = await asyncio.wait(attempts, timeout=REACH_TIMEOUT_S)
            reached = [connection for attempt in done if (connection := attempt.result()) is not None]
        finally:
            await end(*attempts)
        return {connection.peer_id: connection for connection in reached}

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(connection.close() for connection in self._open.values()))
        self._open.clear()

    async def _try(self, record: PeerRecord) -> Connection | None:
        lock = self._attempts.setdefault(record.peer_id, asyncio.Lock())
        async with lock:
            known = self._open.get(record.peer_id)
            if known is not None and not known.closed and known.link.address in record.addresses:
                # It may be in use: whether it is over is for its heartbeat to say, not for one late answer.
                return known if await _answers(known) else None
            if known is not None:
                await self._open.pop(record.peer_id).close()
            for address in record.addresses:
                if connection := await self._connect(record, address):
                    return connection
            return None

    async def _connect(self, record: PeerRecord, address: str) -> Connection | None:
        try:
            link = await self._dialer.connect(address, record.certificate)
        except LinkClosed as error:
            log.info("peer ...%s: %s", record.peer_id[-8:], error)
            return None
        connection = Connection(record.peer_id, link)
        try:
            if await _answers(connection) and not self._closed:
                self._open[record.peer_id] = connection
                return connection
        finally:
            if self._open.get(record.peer_id) is not connection:
                await connection.close()
        return None


async def _answers(connection: Connection) -> bool:
    try:
        await connection.ping()
    except LinkClosed as error:
        log.info("peer ...%s: %s", connection.peer_id[-8:], error)
        return False
    return True
