"""A simulated client: it reads the directory, pings peers, plans, generates, and repairs chains."""

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
from swarm.sim.swarm import SimulatedPeer, SimulatedSwarm
from swarm.sim.world import Location, one_way_ms

FRESH_S = 10.0  # for which a client trusts what it read in the directory
GENERATION_S = 30.0
PAUSE_S = 15.0  # between two generations, on average
GENERATIONS = 4


@dataclass(frozen=True)
class ChainSearch:
    """One search for a chain.

    Attributes:
        generation: its number for this client, from 0.
        dead: pinged peers that did not answer.
        loop_ms: the true loop of the chain; None without a chain.
        known_best_ms: the true loop of the plan if the client knew all peers; None without a chain.
        best_ms: the best possible loop, if it also knew all links; worked out for some clients
            only.
    """

    at_s: float
    generation: int
    cost: Cost
    pinged: int
    dead: int
    loop_ms: float | None
    known_best_ms: float | None
    best_ms: float | None


@dataclass
class Log:
    """What happened to all clients.

    Attributes:
        broken: times that a peer died in a chain.
        repaired: of these, the times that other peers were found at once.
    """

    found: list[ChainSearch] = field(default_factory=list)
    generations: int = 0
    broken: int = 0
    repaired: int = 0


class Client:
    """One client, with its own record of peers.

    Args:
        thorough: also work out the best possible loop.
        remembers: how many of the nearest peers are pinged again, besides those that the next
            survey finds.
    """

    def __init__(self, swarm: SimulatedSwarm, log: Log, thorough: bool, remembers: int = 0) -> None:
        self._swarm = swarm
        self._log = log
        self._thorough = thorough
        self._remembers = remembers
        self._place = Location.choose(swarm.rng)
        self._health = Health(clock=lambda: swarm.now_s, wall_clock=lambda: swarm.now_s)
        self._records: list[Entry] = []
        self._near: list[Entry] = []
        self._looked_at_s = float("-inf")

    def live(self) -> Process:
        """Run a few generations with pauses between them."""
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
        """Find a chain: survey if it is time to, ping, plan.

        With the ``number`` of a generation, compare the chain with the best one, and log it.
        """
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
        """Ping peers; return those that answer, and how many do not."""
        health = self._health
        usable = [e for e in self._records if e.peer_id not in avoid and health.usable(e.peer_id)]
        near = {entry.peer_id for entry in self._near}
        remembered = [entry for entry in usable if entry.peer_id in near]
        others = [entry for entry in usable if entry.peer_id not in near]
        answering = []
        dead = 0
        for entry in [*remembered, *candidates(others, rng=self._swarm.rng)]:
            member = self._swarm.members.get(entry.peer_id)
            if member is None or not member.online:
                self._health.failed(entry.peer_id)
                dead += 1
            else:
                layers = entry.last_layer - entry.first_layer
                announced_ms = 1e3 / entry.tokens_per_second / layers
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
        """Replace the dead peers of a chain by known ones, or by those of a new survey."""
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
    ) -> ChainSearch:
        members = self._swarm.members
        if chain is None:
            return ChainSearch(self._swarm.now_s, number, cost, pinged, dead, None, None, None)
        layers = self._swarm.model_layers
        online = [member for member in members.values() if member.online]
        all_peers = []
        for each in online:
            rtt_ms = 2 * one_way_ms(self._place, each.place)
            span = each.first, each.last
            all_peers.append(Candidate(each.peer_id, *span, rtt_ms, layer_ms=each.layer_ms))
        known = loop_ms(self._place, plan(all_peers, layers).stages, members)
        best = None
        if self._thorough and not number:
            best = best_possible_ms(self._place, online, layers)
        real = loop_ms(self._place, chain.stages, members)
        return ChainSearch(self._swarm.now_s, number, cost, pinged, dead, real, known, best)


def loop_ms(
    client: Location, stages: Sequence[Stage], members: Mapping[str, SimulatedPeer]
) -> float:
    """Return the true time of a loop over these peers for one token."""
    peers = [members[stage.peer_id] for stage in stages]
    places = [client, *(peer.place for peer in peers), client]
    travel_ms = sum(one_way_ms(a, b) for a, b in pairwise(places))
    pairs = zip(peers, stages, strict=True)
    return travel_ms + sum(peer.layer_ms * (stage.last - stage.first) for peer, stage in pairs)
