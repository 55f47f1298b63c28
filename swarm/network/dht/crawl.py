"""A crawl of the trees of keys: it reads few keys, and yet samples all peers fairly.

A reader reads the root of every tree. Where it finds enough records to suspect others below, it
goes down a random way, to the end. If that gave few records, it reads keys beside its way until it
has enough records, or all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from swarm.network.dht.keys import MAX_DEPTH, SIGNPOST, Shard

# keys of a way that are read at once below a full one: one in vain costs less than a round of
# waiting
STRIDE = 2
BATCH = 16  # keys beside the ways that are read at once
MAX_SHARDS = 128  # that one survey reads: all ways to the end take 4 * 13

T = TypeVar("T")


@dataclass(frozen=True)
class CrawlSample(Generic[T]):
    """A sample of records.

    ``weights``: for how many records each stands. ``total``: the estimated number of all records,
    exact if ``complete``.
    """

    records: tuple[T, ...]
    weights: tuple[float, ...]
    total: int
    complete: bool


class Crawl(Generic[T]):
    """One reading of some trees.

    Read the keys that are `wanted` and pass the records to `saw`, until no key is wanted.

    Args:
        enough: records; with fewer, the reader goes on beside its ways.
        counts: whether a record is one that is looked for; others only show that a key is in use.
        satisfied: whether these records suffice; otherwise the reader goes on, too.
        signpost: with this many records at a key, others may lie below it.
    """

    def __init__(
        self,
        trees: Iterable[int],
        enough: int,
        rng: random.Random,
        counts: Callable[[T], bool] = lambda _: True,
        satisfied: Callable[[Iterable[T]], bool] = lambda _: True,
        signpost: int = SIGNPOST,
    ) -> None:
        self._trees = tuple(trees)
        self._enough = enough
        self._rng = rng
        self._counts = counts
        self._satisfied = satisfied
        self._signpost = signpost
        self._ways = {tree: f"{rng.getrandbits(MAX_DEPTH):0{MAX_DEPTH}b}" for tree in self._trees}
        self._read: dict[Shard, Sequence[T]] = {}

    @property
    def records_read(self) -> int:
        return sum(map(len, self._read.values()))

    def wanted(self) -> list[Shard]:
        """Return the keys to read next; none when the crawl is done."""
        on_the_way = [shard for tree in self._trees for shard in self._ahead(tree)]
        if on_the_way:
            return on_the_way
        beside = self._beside()
        room = MAX_SHARDS - len(self._read)
        if (
            not beside
            or room <= 0
            or (self.records_read >= self._enough and self._satisfied(self._all()))
        ):
            return []
        return self._rng.sample(beside, min(len(beside), BATCH, room))

    def saw(self, found: Mapping[Shard, Sequence[T]]) -> None:
        """Note the records under keys that were wanted."""
        self._read.update(found)

    def sample(self) -> CrawlSample[T]:
        """Return a sample in which no peer of a tree is twice as likely to be as another one.

        Records of upper keys, which more readers read, are thinned for it. Nothing is thinned if
        all records satisfy and the thinned sample would not.
        """
        kept: list[tuple[T, float]] = []
        for tree in self._trees:
            here = {
                shard: records
                for shard in self._read
                if shard.tree == tree and (records := self._counting(shard))
            }
            chances = {shard: self._chance(shard) for shard in here}
            least = min(chances.values(), default=1.0)
            for shard, records in here.items():
                kept += [
                    (record, 1 / least)
                    for record in records
                    if self._rng.random() * chances[shard] < least
                ]
        if not self._satisfied(record for record, _ in kept) and self._satisfied(self._all()):
            kept = [
                (r, 1 / self._chance(shard)) for shard in self._read for r in self._counting(shard)
            ]
        total = round(sum(self._estimate(Shard(tree)) for tree in self._trees))
        return CrawlSample(
            tuple(r for r, _ in kept), tuple(w for _, w in kept), total, not self._beside()
        )

    def _counting(self, shard: Shard) -> list[T]:
        return [record for record in self._read.get(shard, ()) if self._counts(record)]

    def _all(self) -> Iterable[T]:
        return (record for shard in self._read for record in self._counting(shard))

    def _ahead(self, tree: int) -> list[Shard]:
        """Return the next keys on a tree's way."""
        depth = 0
        while (shard := Shard(tree, self._ways[tree][:depth])) in self._read:
            if depth == MAX_DEPTH or not self._leads_on(shard):
                return []
            depth += 1
        last = Shard(tree, self._ways[tree][: depth - 1])
        stride = STRIDE if depth and len(self._read[last]) >= 2 * self._signpost else 1
        return [
            Shard(tree, self._ways[tree][:each])
            for each in range(depth, min(depth + stride, MAX_DEPTH + 1))
        ]

    def _beside(self) -> list[Shard]:
        """Return keys that were not read though they may hold records."""
        crowded = [shard for shard in self._read if self._leads_on(shard)]
        return [child for shard in crowded for child in shard.children if child not in self._read]

    def _leads_on(self, shard: Shard) -> bool:
        return len(self._read[shard]) >= self._signpost

    def _chance(self, shard: Shard) -> float:
        """Return the chance with which this key came to be read."""
        if not shard.depth:
            return 1.0
        return self._chance(shard.parent) * (1.0 if shard.sibling in self._read else 0.5)

    def _estimate(self, shard: Shard) -> float:
        """Return the estimated number of counting records at this key and below."""
        below = [self._estimate(child) for child in shard.children if child in self._read]
        return len(self._counting(shard)) + (2 * sum(below) / len(below) if below else 0.0)
