"""The DHT as a store of keys whose entries expire, with the cost of every look-up and store."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

REPLICAS = 5  # nodes that hold a key; a reader gets the whole key from each of them
BEAM = 8  # nodes nearest to a key that a search asks
NEIGHBOURS = 20  # named by a node in every answer
NEIGHBOUR_BYTES = 20 + 38  # node id, peer id
REQUEST_BYTES = 100  # 40 real nodes on loopback: 10 to 13 requests a key, 1.2 to 1.3 KB each


class Entry(NamedTuple):
    """One peer's record under a key."""

    peer_id: str
    first_layer: int
    last_layer: int
    tokens_per_second: float
    online: bool  # False while it loads its layers
    expires_s: float


@dataclass
class Cost:
    """Work of the DHT."""

    lookups: int = 0
    stores: int = 0
    records: int = 0  # read, counted once for all copies

    def messages(self, nodes: int) -> float:
        """Return the number of requests and answers, in a DHT of ``nodes``."""
        asked = BEAM + math.log2(max(2, nodes))
        return 2 * (self.lookups * asked + self.stores * (asked + REPLICAS))

    def nbytes(self, nodes: int, record_bytes: int) -> float:
        """Return the bytes of these messages, all copies of records and named neighbours included.

        ``record_bytes`` is the size of one record.
        """
        asked = self.messages(nodes) / 2
        values = REPLICAS * record_bytes * (self.records + self.stores)
        return asked * (REQUEST_BYTES + NEIGHBOURS * NEIGHBOUR_BYTES) + values

    def add(self, other: "Cost") -> None:
        self.lookups += other.lookups
        self.stores += other.stores
        self.records += other.records


@dataclass
class Dht:
    """All keys of the network.

    Attributes:
        most_records: the most records under one key at any time.
        reads: how often each key was read.
    """

    total: Cost = field(default_factory=Cost)
    most_records: int = 0
    reads: Counter[Hashable] = field(default_factory=Counter)
    _keys: defaultdict[Hashable, dict[str, Entry]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def read(self, keys: Sequence[Hashable], now_s: float, cost: Cost) -> list[Sequence[Entry]]:
        """Return the records under each key, and add the cost to ``cost``."""
        found = [self._living(key, now_s) for key in keys]
        self.reads.update(keys)
        cost.add(paid := Cost(lookups=len(found), records=sum(map(len, found))))
        self.total.add(paid)
        return found

    def store(self, key: Hashable, entry: Entry, now_s: float) -> None:
        """Write or refresh a record."""
        under = self._keys[key]
        under[entry.peer_id] = entry
        self.total.add(Cost(stores=1))
        if len(under) > self.most_records:
            self.most_records = max(self.most_records, len(self._living(key, now_s)))

    def remove(self, key: Hashable, peer_id: str) -> None:
        """Remove a record, as writing "offline" over it does for readers."""
        self._keys[key].pop(peer_id, None)
        self.total.add(Cost(stores=1))

    def sizes(self, now_s: float) -> dict[Hashable, int]:
        """Return the number of records under each key that has any."""
        sizes = {key: len(self._living(key, now_s)) for key in list(self._keys)}
        return {key: size for key, size in sizes.items() if size}

    def _living(self, key: Hashable, now_s: float) -> Sequence[Entry]:
        under = self._keys.get(key)
        if not under:
            return ()
        for peer_id in [entry.peer_id for entry in under.values() if entry.expires_s <= now_s]:
            del under[peer_id]
        return list(under.values())
