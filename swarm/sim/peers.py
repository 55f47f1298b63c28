"""A simulated peer's life: it joins, chooses layers, loads them, serves, moves, and leaves."""

from collections.abc import Generator, Sequence

import numpy as np

from swarm.network.dht.keys import Shard, block_of, models_key, way_of
from swarm.network.dht.records import RECORD_LIFETIME_S, REFRESH_INTERVAL_S
from swarm.network.dht.slots import ModelListSlot, RecordSlot
from swarm.routing.placement import ServedSpan, better_span, choose_span
from swarm.sim.dht import Cost, Entry
from swarm.sim.events import Process
from swarm.sim.swarm import SimulatedPeer, SimulatedSwarm

FINGERPRINT = "0" * 32
LOAD_S_PER_LAYER = 2.0  # from a disk or the hub
CLAIM_PAUSE_S = 1.5
CLAIM_ROUNDS = 6
LOOK_EVERY_S = 10.0  # time between a peer's searches for a better span
CROWD = 32  # peers in the swarm from which on it searches less often
WITHDRAWING = 0.5  # share of the peers that withdraw their record when they leave


class PeerLife:
    """The behaviour of one peer.

    Its record lies where the rules of `swarm.network.dht.slots` put it, and its span is what
    `swarm.routing.placement` chose.
    """

    def __init__(self, swarm: SimulatedSwarm, member: SimulatedPeer, lifetime_s: float) -> None:
        self.swarm = swarm
        self.member = member
        self._rng = swarm.rng
        self.over = False  # whether it left by itself
        self._ends_s = swarm.now_s + lifetime_s
        self._slot: RecordSlot | None = None
        self._listing = ModelListSlot(member.peer_id, FINGERPRINT, swarm.rng)
        self._shard: Shard | None = None  # where our record lies
        self._listed_at: str | None = None
        swarm.members[member.peer_id] = member

    def live(self) -> Process:
        """Live from the first survey of the swarm to the end."""
        yield from self._choose()
        self.swarm.events.start(self._refresh(), REFRESH_INTERVAL_S * self._rng.random())
        yield from self._load()
        while self.member.alive:
            pause_s = LOOK_EVERY_S * max(1.0, self._total / CROWD) * self._rng.uniform(0.5, 1.5)
            yield max(0.0, min(pause_s, self._ends_s - self.swarm.now_s))
            if not self.member.alive:
                return  # it was removed meanwhile
            if self.swarm.now_s >= self._ends_s:
                self._end()
                self.over = True
            else:
                yield from self._reconsider()

    def _end(self) -> None:
        """Leave, and perhaps withdraw the records."""
        self.swarm.leave(self.member)
        if self._rng.random() < WITHDRAWING:
            for key in (self._shard, self._listed_at):
                if key is not None:
                    self.swarm.dht.remove(key, self.member.peer_id)

    def _choose(self) -> Generator[float, None, None]:
        """Choose a span, claim it, wait and survey again, until no other span is better.

        Gives up after `CLAIM_ROUNDS`.
        """
        member = self.member
        span = choose_span(
            self._others(),
            self.swarm.model_layers,
            member.capacity,
            member.tokens_per_second,
            self._rng,
        )
        for _ in range(CLAIM_ROUNDS):
            self._take(span)
            yield CLAIM_PAUSE_S * self._rng.uniform(0.7, 1.3)
            better = self._better(self._with_precedence())
            if better is None:
                break
            span = better

    def _reconsider(self) -> Generator[float, None, None]:
        """Move if that clearly pays: survey, wait, survey again, drain, load."""
        if self._better(self._others()) is None:
            return
        yield self._rng.uniform(0, 4)
        span = self._better(self._others())
        if span is None or not self.member.alive:
            return
        self.swarm.moves += 1
        self.swarm.serve(self.member, online=False)
        self._take(span)
        yield CLAIM_PAUSE_S
        yield from self._load()

    def _load(self) -> Generator[float, None, None]:
        yield LOAD_S_PER_LAYER * (self.member.last - self.member.first)
        if self.member.alive:
            self.swarm.serve(self.member, online=True)
            self._publish()

    def _take(self, span: tuple[int, int]) -> None:
        self.member.first, self.member.last = span
        self._publish()

    def _others(self) -> list[ServedSpan]:
        """Survey the directory; return sampled peers, each with the speed that it represents."""
        self._seen = self.swarm.survey(Cost())
        self._total = self._seen.total
        return self._servings(self._seen.records, self._seen.weights)

    def _with_precedence(self) -> list[ServedSpan]:
        """Survey again; return the peers that serve, and those whose claims have precedence."""
        before = {(e.peer_id, e.first_layer, e.last_layer) for e in self._seen.records}
        sample = self.swarm.survey(Cost())
        preceding = [
            (entry, weight)
            for entry, weight in zip(sample.records, sample.weights, strict=True)
            if entry.online
            or (entry.peer_id, entry.first_layer, entry.last_layer) in before
            or entry.peer_id < self.member.peer_id
        ]
        self._seen = sample
        return self._servings(
            [entry for entry, _ in preceding], [weight for _, weight in preceding]
        )

    def _servings(self, entries: Sequence[Entry], weights: Sequence[float]) -> list[ServedSpan]:
        """Return the spans of others. Dead peers of the layers that matter are left out.

        A real peer finds these by pings.
        """
        counts = np.zeros(self.swarm.model_layers)
        for entry in entries:
            counts[entry.first_layer : entry.last_layer] += 1
        weakest = counts == counts.min()
        weakest[self.member.first : self.member.last] = True
        return [
            ServedSpan(
                entry.peer_id, entry.first_layer, entry.last_layer, entry.tokens_per_second * weight
            )
            for entry, weight in zip(entries, weights, strict=True)
            if entry.peer_id != self.member.peer_id
            and (
                entry.peer_id in self.swarm.members
                or not weakest[entry.first_layer : entry.last_layer].any()
            )
        ]

    def _better(self, others: list[ServedSpan]) -> tuple[int, int] | None:
        member = self.member
        mine = ServedSpan(member.peer_id, member.first, member.last, member.tokens_per_second)
        return better_span(others, mine, self.swarm.model_layers, member.capacity, self._rng)

    def _refresh(self) -> Process:
        while self.member.alive:
            self._publish()
            yield REFRESH_INTERVAL_S

    def _publish(self) -> None:
        """Find where our records belong, if it is time to, and write them."""
        if not self.member.alive:
            return
        member = self.member
        now_s = self.swarm.now_s
        dht = self.swarm.dht
        tree = block_of(member.first, self.swarm.model_layers)
        if self._slot is None or (self._shard is not None and self._shard.tree != tree):
            self._slot = RecordSlot(member.peer_id, self._rng)
        way = way_of(member.peer_id)
        while (depth := self._slot.wanted(now_s)) is not None:
            (found,) = dht.read([Shard(tree, way[:depth])], now_s, Cost())
            self._slot.saw(
                [entry.peer_id for entry in found if entry.peer_id != member.peer_id], now_s
            )
        shard = Shard(tree, way[: self._slot.depth])
        self._list(now_s)
        if self._shard is not None and self._shard != shard:
            dht.remove(self._shard, member.peer_id)
        self._shard = shard
        dht.store(shard, self._entry(), now_s)

    def _list(self, now_s: float) -> None:
        listing = self._listing
        dht = self.swarm.dht
        way = way_of(FINGERPRINT)
        assert self._slot is not None
        while (depth := listing.wanted(now_s)) is not None:
            (found,) = dht.read([models_key("sim", way[:depth])], now_s, Cost())
            others = [
                (FINGERPRINT, entry.peer_id)
                for entry in found
                if entry.peer_id != self.member.peer_id
            ]
            listing.saw(others, now_s, crowd=2**self._slot.depth)
        key = models_key("sim", way[: listing.depth]) if listing.listed else None
        if self._listed_at is not None and self._listed_at != key:
            dht.remove(self._listed_at, self.member.peer_id)
        if key is not None:
            dht.store(key, self._entry(), now_s)
        self._listed_at = key

    def _entry(self) -> Entry:
        member = self.member
        span = member.first, member.last
        expires_s = self.swarm.now_s + RECORD_LIFETIME_S
        return Entry(member.peer_id, *span, member.tokens_per_second, member.online, expires_s)
