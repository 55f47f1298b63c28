"""A node's storage of others' records, with bounds: hivemind's has none."""

from __future__ import annotations

from collections.abc import Callable

from hivemind.dht.routing import DHTID, BinaryDHTValue, Subkey
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.utils.timed_storage import get_dht_time

from swarm.network.dht.records import latest_expiration_s
from swarm.util.rates import Rate, TokenBuckets

MAX_RECORDS = 256  # under a key, which is meant to hold 32, or 128 of the list of models
# Of these; so an answer to 16 keys stays below the 4 MiB that one message may have. Fits 192 of the
# largest records.
MAX_KEY_BYTES = 224 << 10
MAX_WRITES = 64  # of one peer's records in a minute; it needs about six
MAX_BYTES = 32 << 20  # written in a minute, by all. Records live as long, so it bounds what is kept
MAX_WRITERS = 100_000  # remembered; `MAX_BYTES` lets fewer write in a minute
_OVERHEAD_BYTES = 128  # of one record besides its value


class BoundedStorage(DHTLocalStorage):  # type: ignore[misc, unused-ignore]
    """hivemind's storage with bounds. Refreshing comes before new records, so a flood evicts
    none."""

    def __init__(self, clock: Callable[[], float] = get_dht_time) -> None:
        super().__init__()
        self._clock = clock
        self._writes = TokenBuckets(Rate.a_minute(MAX_WRITES), clock, MAX_WRITERS)
        self._bytes = TokenBuckets(Rate.a_minute(MAX_BYTES), clock)

    @property
    def records(self) -> int:
        """The number of records under all keys."""
        return sum(
            len(kept.value)
            for _, kept in self.items()
            if isinstance(kept.value, DictionaryDHTValue)
        )

    def store_subkey(
        self, key: DHTID, subkey: Subkey, value: BinaryDHTValue, expiration_time: float
    ) -> bool:
        """Store as hivemind does. Return False also if a bound is reached."""
        item = self.get(key)
        records = (
            item.value if item is not None and isinstance(item.value, DictionaryDHTValue) else None
        )
        known = records.get(subkey) if records is not None else None
        if (
            records is not None
            and known is not None
            and known.expiration_time > latest_expiration_s(self._clock())
        ):
            del records[subkey]  # our clock has been set back since
            known = None
        if known is not None and known.expiration_time >= expiration_time:
            return bool(known.value == value and known.expiration_time == expiration_time)
        if records is not None and not _has_room(records, subkey, value):
            return False
        if not self._counted(subkey, len(value) + _OVERHEAD_BYTES):
            return False
        return bool(super().store_subkey(key, subkey, value, expiration_time))

    def _counted(self, subkey: Subkey, nbytes: int) -> bool:
        """Count a write against its peer and against all together; against neither if one is used
        up."""
        if not (self._writes.has(subkey) and self._bytes.has(None, nbytes)):
            return False
        return self._writes.take(subkey) and self._bytes.take(None, nbytes)


def _has_room(records: DictionaryDHTValue, subkey: Subkey, value: BinaryDHTValue) -> bool:
    others = [known.value for other, known in records.items() if other != subkey]
    return (
        len(others) < MAX_RECORDS
        and sum(map(len, others)) + len(value) + 80 * len(others) <= MAX_KEY_BYTES
    )
