"""Which peers: what the directory says, what they answer, and what was seen of them, put together into chains."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from swarm.chain import ChainLink
from swarm.errors import SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.network.connection import Connection
from swarm.network.directory import Directory
from swarm.network.discovery import Connections
from swarm.network.records import PeerRecord
from swarm.results import RouteStop, Stats
from swarm.routing.chain import MissingLayers, Stage
from swarm.routing.health import Health
from swarm.routing.plan import Candidate, Plan, plan

FRESH_S = 10.0  # what the directory said is believed for so long; a peer that is gone by then is noticed anyhow
STICKY = 1.15  # a chain that was good stays unless another one is better by this factor


class WrongWeights(SwarmError):
    """The swarm serves a model of this name, but other weights."""

    def __init__(self, model: str, ours: str, theirs: Sequence[str]) -> None:
        super().__init__(model, ours, theirs)
        self.model, self.ours, self.theirs = model, ours, tuple(theirs)

    def __str__(self) -> str:
        theirs = ", ".join(fingerprint[:12] for fingerprint in self.theirs)
        return (
            f"the swarm serves {self.model} with other weights than yours (fingerprint {theirs}, yours is "
            f"{self.ours[:12]}); use the same model folder or revision as its peers"
        )


class Router:
    """Finds chains for one model.

    Args:
        model: its name as the user gave it, for errors.
        clock: seconds.
    """

    def __init__(
        self,
        directory: Directory,
        connections: Connections,
        checkpoint: Checkpoint,
        model: str,
        health: Health,
    ) -> None:
        self.health = health
        self._directory, self._connections = directory, connections
        self._checkpoint, self._model = checkpoint, model
        self._records: dict[str, PeerRecord] = {}
        self._looked_at = float("-inf")
        self._last: Plan | None = None

    async def chain(self, avoid: Collection[str] = ()) -> list[ChainLink]:
        """The chain with the shortest loop, by all that is known now; the last one again if it is nearly as good.

        Raises:
            MissingLayers: if the peers that answer leave layers out.
            WrongWeights: if the model is served, but with other weights.
        """
        try:
            links, self._last = await self._plan(0, self._checkpoint.num_layers, avoid, self._last)
        except MissingLayers:
            if not self._records:
                await self._blame_weights()
            raise
        return links

    async def span(self, first: int, last: int, avoid: Collection[str]) -> list[ChainLink]:
        """Peers that serve layers ``[first, last)`` together, one after the other, none of ``avoid`` among them.

        Raises:
            MissingLayers: if there are none.
        """
        links, _ = await self._plan(first, last, avoid)
        return links

    def failed(self, peer_id: str) -> None:
        """A peer broke a session or did not answer."""
        self.health.failed(peer_id)

    def learn(self, route: Sequence[RouteStop], stats: Stats) -> None:
        """A generation over these peers went well."""
        stages = zip(route, stats.stage_compute_ms, stats.stage_queue_ms, strict=False)
        for stop, compute_ms, queue_ms in stages:
            first, last = stop.layers
            self.health.served(stop.peer_id, last - first, compute_ms, queue_ms)
            self.health.recovered(stop.peer_id)

    async def _plan(
        self, first: int, last: int, avoid: Collection[str], before: Plan | None = None
    ) -> tuple[list[ChainLink], Plan]:
        """Plan with what is known; ask the directory again if that leaves a gap."""
        age_s = time.monotonic() - self._looked_at
        for fresh in (age_s > FRESH_S, True):
            if fresh:
                await self._look()
            usable = [r for r in self._records.values() if self._usable(r, first, last, avoid)]
            reached = await self._connections.reach(usable)
            for record in usable:
                if record.peer_id not in reached:
                    self.health.failed(record.peer_id)
            candidates = [
                self._candidate(record, reached[record.peer_id], first, last)
                for record in usable
                if record.peer_id in reached
            ]
            try:
                found = plan(candidates, last - first, self._model)
                break
            except MissingLayers as missing:
                if fresh:
                    raise _shifted(missing, first, self._checkpoint.num_layers) from None
        if before is not None and (again := _cost_of(before, candidates)) is not None:
            found = replace(before, loop_ms=again) if again <= STICKY * found.loop_ms else found
        links = [
            ChainLink(
                Stage(stage.peer_id, stage.first + first, stage.last + first),
                self._records[stage.peer_id],
                reached[stage.peer_id],
            )
            for stage in found.stages
        ]
        return links, found

    async def _look(self) -> None:
        checkpoint = self._checkpoint
        found = await self._directory.peers(checkpoint.fingerprint, checkpoint.num_layers)
        self._records = {record.peer_id: record for record in found if record.state == "online"}
        self._looked_at = time.monotonic()

    def _usable(self, record: PeerRecord, first: int, last: int, avoid: Collection[str]) -> bool:
        serves = record.first_layer < last and first < record.last_layer
        return serves and record.peer_id not in avoid and self.health.usable(record.peer_id)

    def _candidate(self, record: PeerRecord, connection: Connection, first: int, last: int) -> Candidate:
        """A peer's part of layers ``[first, last)``, counted from ``first`` on. What was measured replaces what the peer
        says of itself."""
        measured = self.health.layer_ms(record.peer_id)
        announced = 1e3 / max(record.tokens_per_second, 1e-3) / (record.last_layer - record.first_layer)
        return Candidate(
            record.peer_id,
            max(record.first_layer - first, 0),
            min(record.last_layer, last) - first,
            rtt_ms=connection.rtt_ms,
            fixed_ms=self.health.queue_ms(record.peer_id),
            layer_ms=announced if measured is None else measured,
        )

    async def _blame_weights(self) -> None:
        """Nobody serves our fingerprint: say so if somebody serves the model's name."""
        checkpoint = self._checkpoint
        others = [m.fingerprint for m in await self._directory.models() if m.model == checkpoint.name]
        if others:
            raise WrongWeights(self._model, checkpoint.fingerprint, others)


def _shifted(missing: MissingLayers, first: int, model_layers: int) -> MissingLayers:
    gaps = [(a + first, b + first) for a, b in missing.gaps]
    return MissingLayers(missing.model, gaps, model_layers, missing.peers)


def _cost_of(before: Plan, candidates: Sequence[Candidate]) -> float | None:
    """What the loop of an earlier plan would take now; None if one of its peers is not there any more."""
    by_id: Mapping[str, Candidate] = {candidate.peer_id: candidate for candidate in candidates}
    stages = []
    for stage in before.stages:
        candidate = by_id.get(stage.peer_id)
        if candidate is None or candidate.first_layer > stage.first or candidate.last_layer < stage.last:
            return None
        stages.append(replace(candidate, first_layer=stage.first, last_layer=stage.last))
    return plan(stages, before.stages[-1].last).loop_ms
