"""What one peer writes into the DHT: its record, perhaps an entry in the list of models, and under
which keys."""

from __future__ import annotations

import random

from swarm.network.dht.lookup import Found
from swarm.network.dht.records import ModelRecord, PeerRecord, Record
from swarm.network.dht.slots import Berth, Listing


class Announcement:
    """The places of one peer's records while its span begins in one block of one model.

    Ask which keys are `wanted` before every refresh, look, and say what was `saw`, until none is.
    """

    def __init__(self, record: PeerRecord, rng: random.Random) -> None:
        self._record = record
        self._berth = Berth(record.peer_id, rng)
        self._listing = Listing(record.peer_id, record.fingerprint, rng)

    def is_for(self, record: PeerRecord) -> bool:
        """Whether this record belongs on the same way."""
        return record.key() == self._record.key()

    def wanted(self, now_s: float) -> list[str]:
        """The keys to look at now."""
        depth, listed_depth = self._berth.wanted(now_s), self._listing.wanted(now_s)
        keys = [] if depth is None else [self._record.key(depth)]
        return (
            keys if listed_depth is None else [*keys, self._record.model_record().key(listed_depth)]
        )

    def saw(self, found: Found, now_s: float) -> None:
        """What lies under the keys that were wanted."""
        us, entry = self._record.peer_id, self._record.model_record()
        here = {
            key: [
                record
                for record, _ in records
                if record.peer_id != us and record.state != "offline"
            ]
            for key, records in found.items()
        }
        depth, listed_depth = self._berth.wanted(now_s), self._listing.wanted(now_s)
        if depth is not None and (key := self._record.key(depth)) in here:
            self._berth.saw([r.peer_id for r in here[key] if isinstance(r, PeerRecord)], now_s)
        if listed_depth is not None and (key := entry.key(listed_depth)) in here:
            entries = [(r.fingerprint, r.peer_id) for r in here[key] if isinstance(r, ModelRecord)]
            self._listing.saw(entries, now_s, crowd=2**self._berth.depth)

    def stores(self, record: PeerRecord) -> dict[str, Record]:
        """What to write for this record, by key."""
        stores: dict[str, Record] = {record.key(self._berth.depth): record}
        if self._listing.listed:
            entry = record.model_record()
            stores[entry.key(self._listing.depth)] = entry
        return stores
