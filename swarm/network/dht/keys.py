"""A prefix hash tree: the keys under which records lie stay small, however large the swarm is.

A model's layers are divided into at most `BLOCKS` blocks. Peers whose spans begin in the same block
share a tree of keys: one root, two keys below it, four below these. Hashed bits of a peer's id are
its way down from the root, and its record lies somewhere on that way, so a small swarm lies in the
roots and a large one spreads over many keys. The list of models is one more tree, whose ways are
those of the models' fingerprints.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

# Every node that is asked for a key names its neighbours: even an empty key costs a reader 15 to 30
# KB, as much as five to ten records. More blocks would spread readers over more nodes, and cost
# them more.
BLOCKS = 4
MAX_DEPTH = 12  # 4 trees of 8191 keys with 32 records each: room for a million peers of one model
CAPACITY = 32  # records that a key is meant to hold; see `swarm.network.dht.slots`
# with this many records at a key others may lie below: after departures it is not full
SIGNPOST = CAPACITY * 3 // 8
LIST_CAPACITY = 128  # the same for keys of the list of models, whose entries are smaller
LIST_SIGNPOST = LIST_CAPACITY * 3 // 8


class Shard(NamedTuple):
    """One key of one tree; ``path`` is the way from the root, a string of 0s and 1s."""

    tree: int
    path: str = ""

    @property
    def depth(self) -> int:
        return len(self.path)

    @property
    def parent(self) -> Shard:
        return Shard(self.tree, self.path[:-1])

    @property
    def sibling(self) -> Shard:
        return Shard(self.tree, self.path[:-1] + "10"[int(self.path[-1])])

    @property
    def children(self) -> tuple[Shard, ...]:
        if self.depth == MAX_DEPTH:
            return ()
        return Shard(self.tree, self.path + "0"), Shard(self.tree, self.path + "1")


def block_count(model_layers: int) -> int:
    """Return into how many blocks a model is divided."""
    return min(BLOCKS, model_layers)


def block_of(first_layer: int, model_layers: int) -> int:
    """Return the block in which a span that begins at ``first_layer`` lies."""
    return first_layer * block_count(model_layers) // model_layers


def way_of(name: str) -> str:
    """The path from the root to the deepest key, for a peer's id or a fingerprint: `MAX_DEPTH`
    bits."""
    return f"{_hashed(name, 'way'):064b}"[:MAX_DEPTH]


def rank_of(name: str) -> int:
    """Who goes first when too many met at one key. Independent of the way."""
    return _hashed(name, "rank")


def span_key(network: str, fingerprint: str, shard: Shard) -> str:
    """The DHT key of the peers whose spans of this model begin in block ``shard.tree``."""
    return f"swarm/{network}/{fingerprint}/{shard.tree}/{shard.path}"


def models_key(network: str, path: str = "") -> str:
    """The DHT key of one part of a network's list of models."""
    return f"swarm/{network}/models/{path}"


def _hashed(name: str, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"swarm {purpose} {name}".encode()).digest()[:8], "big")
