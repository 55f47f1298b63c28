"""Measures the delay to peers that may come before or after this one in a chain."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from statistics import median
from typing import NoReturn, Protocol

from swarm.errors import DirectoryDown
from swarm.network.dht.records import MAX_NEIGHBOURS, PeerRecord, neighbour_key
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import LinkClosed
from swarm.network.pool import Connections

FIRST_PAUSE_S = 2.0  # other peers that start at the same time are up by then
PAUSE_S = 60.0
PINGS = 3
MAX_TENTHS = 65_535

log = logging.getLogger(__name__)


def likely(
    records: Sequence[PeerRecord],
    mine: PeerRecord,
    known: Sequence[str],
    rng: random.Random | None = None,
) -> list[PeerRecord]:
    """Return the peers to measure: those next to which this peer may stand in a chain.

    The nearest known ones fill half of a record's room; others are drawn by lot for the rest.

    Args:
        mine: this peer's own record.
        known: peer ids, the nearest first.
        rng: draws the lots.
    """
    before, after = mine.first_layer, mine.last_layer
    may = {
        record.peer_id: record
        for record in records
        if record.peer_id != mine.peer_id
        and (
            record.first_layer <= after < record.last_layer
            or record.first_layer < before <= record.last_layer
        )
    }
    near = [may.pop(peer_id) for peer_id in known[: MAX_NEIGHBOURS // 2] if peer_id in may]
    others = list(may.values())
    draw = rng or random.Random()
    return near + draw.sample(others, min(len(others), MAX_NEIGHBOURS - len(near)))


class RecordSource(Protocol):
    """What `Neighbours` needs of a `Directory`."""

    async def peers(self, fingerprint: str, model_layers: int) -> list[PeerRecord]: ...


class Neighbours:
    """Measures now and then, while `run` is running. Close it at the end."""

    def __init__(self, dialer: Dialer, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._connections = Connections(dialer)
        self._one_way_ms: dict[str, float] = {}  # the nearest first

    @property
    def announced(self) -> tuple[tuple[str, int], ...]:
        """The delays as a record carries them: keys of peers and tenths of a millisecond."""
        return tuple(
            (neighbour_key(id_), min(round(ms * 10), MAX_TENTHS))
            for id_, ms in self._one_way_ms.items()
        )

    async def run(self, directory: RecordSource, mine: Callable[[], PeerRecord]) -> NoReturn:
        """Measure until cancelled; ``mine`` returns this peer's own record."""
        await asyncio.sleep(FIRST_PAUSE_S)
        while True:
            try:
                await self.measure(directory, mine())
            except DirectoryDown as error:
                log.info("the neighbours were not measured: %s", error)
            await asyncio.sleep(PAUSE_S * self._rng.uniform(0.8, 1.2))

    async def measure(self, directory: RecordSource, mine: PeerRecord) -> None:
        """Measure once. Raise `DirectoryDown`."""
        records = await directory.peers(mine.fingerprint, mine.model_layers)
        reached = await self._connections.reach(
            likely(records, mine, list(self._one_way_ms), self._rng)
        )
        measured = await asyncio.gather(*map(_one_way_ms, reached.values()))
        found = {id_: ms for id_, ms in zip(reached, measured, strict=True) if ms is not None}
        self._one_way_ms = dict(sorted(found.items(), key=lambda each: each[1]))
        await self._connections.keep(self._one_way_ms)

    async def close(self) -> None:
        """Close the connections to the measured peers."""
        await self._connections.close()


async def _one_way_ms(connection: Connection) -> float | None:
    """Return half the median round trip in ms; None if the peer does not answer."""
    try:
        return median([await connection.ping() for _ in range(PINGS)]) / 2
    except LinkClosed:
        return None
