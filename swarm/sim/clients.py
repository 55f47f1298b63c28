"""A simulated client: it looks at the directory, pings some of what it finds, plans, generates, and
meets the dead."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from swarm.errors import MissingLayers
from swarm.network.pool import candidates
from swarm.routing.chain import Stage
from swarm.routing.health import Health
from swarm.routing.plan import Candidate, Route, plan
from swarm.sim.dht import Cost, Entry
from swarm.sim.events import Process
from swarm.sim.optimum import best_possible_ms
from swarm.sim.swarm import Member, Swarm
from swarm.sim.world import Place, one_way_ms

FRESH_S = 10.0  # so long a client believes what the directory said
GENERATION_S = 30.0
PAUSE_S = 15.0  # between two generations, on average
GENERATIONS = 4


@dataclass(frozen=True)
class Found:
    """One search for a chain.

    Loops are None where there was none; the best possible is worked out for some only.
    """

    at_s: float
    generation: int  # of this client, from 0
    cost: Cost
    pinged: int
    dead: int  # of those that were pinged
    loop_ms: float | None  # as it really is
    known_best_ms: float | None  # of the plan that this client would make if it knew all peers
    best_ms: float | None  # if it also knew all links


@dataclass
class Log:
    """What all clients met."""

    found: list[Found] = field(default_factory=list)
    generations: int = 0
    broken: int = 0  # times that a peer died in a chain
    repaired: int = 0  # of these, how often other peers were found at once


class Client:
    """One client, with its own book on peers."""

    def __init__(self, swarm: Swarm, log: Log, thorough: bool, remembers: int = 0) -> None:
        """
        Args:
            thorough: also work out what the best possible loop would have been.
            remembers: so many of the nearest peers are pinged again, in addition to those of the
                next look.
        """
        self._swarm, self._log, self._thorough, self._remembers = swarm, log, thorough, remembers
        self._place = Place.choose(swarm.rng)
        self._health = Health(clock=lambda: swarm.now_s, wall_clock=lambda: swarm.now_s)
        self._records: list[Entry] = []
        self._near: list[Entry] = []
        self._looked_at_s = float("-inf")

    def live(self) -> Process:
        """A few generations with pauses between them."""
        for number in range(GENERATIONS):
            chain = self._search(number if number in (0, GENERATIONS - 1) else None)
            if chain is None:
                yield PAUSE_S
                continue
            self._log.generations += 1
            ends_s = self._swarm.now_s + GENERATION_S
            while self._swarm.now_s < ends_s:
                yield 1.0
                if any(stage.peer_id not in self._swarm.members for stage in chain.stages):
                    chain = self._repair(chain)
                    if chain is None:
                        break
            yield PAUSE_S * self._swarm.rng.uniform(0.5, 1.5)

    def _search(self, number: int | None = None) -> Route | None:
        """Look if it is time to, ping, plan; with the ``number`` of a generation, compare with the
        best."""
        cost = Cost()
        if self._swarm.now_s - self._looked_at_s > FRESH_S:
            self._look(cost)
        reached, dead = self._reach()
        chain = self._plan(reached)
        if chain is None and not cost.lookups:
            self._look(cost)
            reached, dead = self._reach()
            chain = self._plan(reached)
        if chain is not None:
            self._swarm.chains_through.update(stage.peer_id for stage in chain.stages)
        if number is not None:
            self._log.found.append(self._compared(number, chain, cost, len(reached) + dead, dead))
        return chain

    def _look(self, cost: Cost) -> None:
        found = [entry for entry in self._swarm.survey(cost).records if entry.online]
        known = {entry.peer_id for entry in found}
        self._records = [*found, *(entry for entry in self._near if entry.peer_id not in known)]
        self._looked_at_s = self._swarm.now_s

    def _reach(self, avoid: Collection[str] = ()) -> tuple[list[Candidate], int]:
        """Those that answer a ping, and how many do not."""
        usable = [
            e for e in self._records if e.peer_id not in avoid and self._health.usable(e.peer_id)
        ]
        near = {entry.peer_id for entry in self._near}
        others = candidates(
            [entry for entry in usable if entry.peer_id not in near], rng=self._swarm.rng
        )
        answering, dead = [], 0
        for entry in [*(entry for entry in usable if entry.peer_id in near), *others]:
            member = self._swarm.members.get(entry.peer_id)
            if member is None or not member.online:
                self._health.failed(entry.peer_id)
                dead += 1
            else:
                announced_ms = (
                    1e3 / entry.tokens_per_second / (entry.last_layer - entry.first_layer)
                )
                measured_ms = self._health.layer_ms(entry.peer_id)
                layer_ms = announced_ms if measured_ms is None else measured_ms
                rtt_ms = 2 * one_way_ms(self._place, member.place)
                span = entry.first_layer, entry.last_layer
                answering.append(Candidate(entry.peer_id, *span, rtt_ms, layer_ms=layer_ms))
        nearest = sorted(answering, key=lambda each: each.rtt_ms)[: self._remembers]
        near = {candidate.peer_id for candidate in nearest}
        self._near = [entry for entry in usable if entry.peer_id in near]
        return answering, dead

    def _plan(self, reached: Sequence[Candidate]) -> Route | None:
        try:
            return plan(reached, self._swarm.model_layers)
        except MissingLayers:
            return None

    def _repair(self, chain: Route) -> Route | None:
        """A peer of the chain died: take others for it from what is known, or from a new look."""
        self._log.broken += 1
        gone = [stage.peer_id for stage in chain.stages if stage.peer_id not in self._swarm.members]
        for peer_id in gone:
            self._health.failed(peer_id)
        reached, _ = self._reach(avoid=gone)
        repaired = self._plan(reached)
        if repaired is not None:
            self._log.repaired += 1
            return repaired
        return self._search()

    def _compared(
        self, number: int, chain: Route | None, cost: Cost, pinged: int, dead: int
    ) -> Found:
        members = self._swarm.members
        if chain is None:
            return Found(self._swarm.now_s, number, cost, pinged, dead, None, None, None)
        online = [member for member in members.values() if member.online]
        everybody = [
            Candidate(
                m.peer_id,
                m.first,
                m.last,
                2 * one_way_ms(self._place, m.place),
                layer_ms=m.layer_ms,
            )
            for m in online
        ]
        known = loop_ms(self._place, plan(everybody, self._swarm.model_layers).stages, members)
        best = (
            best_possible_ms(self._place, online, self._swarm.model_layers)
            if self._thorough and not number
            else None
        )
        real = loop_ms(self._place, chain.stages, members)
        return Found(self._swarm.now_s, number, cost, pinged, dead, real, known, best)


def loop_ms(client: Place, stages: Sequence[Stage], members: Mapping[str, Member]) -> float:
    """What a loop over these peers really takes for one token."""
    peers = [members[stage.peer_id] for stage in stages]
    places = [client, *(peer.place for peer in peers), client]
    travel_ms = sum(one_way_ms(a, b) for a, b in pairwise(places))
    return travel_ms + sum(
        peer.layer_ms * (stage.last - stage.first)
        for peer, stage in zip(peers, stages, strict=True)
    )
