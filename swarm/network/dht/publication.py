"""What one peer writes into the DHT, under which keys, and how often.

That is its record, and perhaps an entry in the list of models.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NoReturn, Protocol

from swarm.errors import ClockOff, DirectoryDown
from swarm.network.dht.lookup import RecordsByKey
from swarm.network.dht.records import REFRESH_INTERVAL_S, ModelRecord, PeerRecord, Record
from swarm.network.dht.slots import ModelListSlot, RecordSlot

log = logging.getLogger(__name__)


class Publication:
    """The slots of one peer's records while its span begins in one block of one model.

    Before every refresh, read the keys that are `wanted` and pass the records to `saw`, until no
    key is wanted.
    """

    def __init__(self, record: PeerRecord, rng: random.Random) -> None:
        self._record = record
        self._slot = RecordSlot(record.peer_id, rng)
        self._listing = ModelListSlot(record.peer_id, record.fingerprint, rng)

    def is_for(self, record: PeerRecord) -> bool:
        """Return whether this record lies on the same way."""
        return record.key() == self._record.key()

    def wanted(self, now_s: float) -> list[str]:
        """Return the keys to look at now."""
        depth, listed_depth = self._slot.wanted(now_s), self._listing.wanted(now_s)
        keys = [] if depth is None else [self._record.key(depth)]
        return (
            keys if listed_depth is None else [*keys, self._record.model_record().key(listed_depth)]
        )

    def saw(self, found: RecordsByKey, now_s: float) -> None:
        """Note the records under the keys that were wanted."""
        us, entry = self._record.peer_id, self._record.model_record()
        here = {
            key: [
                record
                for record, _ in records
                if record.peer_id != us and record.state != "offline"
            ]
            for key, records in found.items()
        }
        depth, listed_depth = self._slot.wanted(now_s), self._listing.wanted(now_s)
        if depth is not None and (key := self._record.key(depth)) in here:
            self._slot.saw([r.peer_id for r in here[key] if isinstance(r, PeerRecord)], now_s)
        if listed_depth is not None and (key := entry.key(listed_depth)) in here:
            entries = [(r.fingerprint, r.peer_id) for r in here[key] if isinstance(r, ModelRecord)]
            self._listing.saw(entries, now_s, crowd=2**self._slot.depth)

    def stores(self, record: PeerRecord) -> dict[str, Record]:
        """Return what to write for this record, by key."""
        stores: dict[str, Record] = {record.key(self._slot.depth): record}
        if self._listing.listed:
            entry = record.model_record()
            stores[entry.key(self._listing.depth)] = entry
        return stores


class Publisher(Protocol):
    """What `announce` needs of a Directory."""

    async def publish(self, record: PeerRecord) -> None: ...


async def announce(
    directory: Publisher,
    current: Callable[[], PeerRecord],
    *,
    interval_s: float = REFRESH_INTERVAL_S,
) -> NoReturn:
    """Publish `current()` now and every `interval_s`. The owner cancels it, and then withdraws.

    A directory that is down is logged and tried again; every other error is raised.
    """
    while True:
        try:
            await directory.publish(current())
        except ClockOff as error:
            # the node warns of it, once
            log.info("This peer's record was not refreshed. %s", error)
        except DirectoryDown as error:
            log.warning(
                "This peer's record was not refreshed, trying again in %.0f s. %s",
                interval_s,
                error,
            )
        await asyncio.sleep(interval_s)
