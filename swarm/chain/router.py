"""Which peers: what the directory says, what they answer, and what was seen of them, put together
into chains."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from swarm.audit.ledger import Ledger
from swarm.chain.failures import ChainBroken
from swarm.chain.stage import ChainLink
from swarm.chain.trust import Trust
from swarm.errors import DirectoryDown, OtherQuantization, WrongWeights
from swarm.model.checkpoint import Checkpoint
from swarm.network.dht.crawl import Sample
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import RECORD_LIFETIME_S, PeerRecord, neighbour_key
from swarm.network.links.connection import Connection
from swarm.network.pool import NEAREST, Connections, candidates
from swarm.outputs import RouteStop, StageTimes
from swarm.routing.chain import MissingLayers, Stage, gaps
from swarm.routing.health import Health
from swarm.routing.plan import Candidate, Plan, cost, plan, runner_up
from swarm.util.singleflight import SingleFlight

WATCH_S = 5.0  # between looks at the directory while a text is written
WATCH_LARGE_S = 60.0  # where a look shows only a part of the swarm: there are spares enough
# what the directory said is believed for so long; a peer that is gone by then is noticed anyhow
FRESH_S = 10.0
KEEP_S = 30.0  # a connection that was just found: a session may be about to open on it
MAX_MEASURED = 4 * NEAREST
STICKY = 1.15  # a chain that was good stays unless another one is better by this factor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A chain, and why.

    Attributes:
        candidates: of all its peers, by their ids: what the prediction is made of.
    """

    plan: Plan
    candidates: Mapping[str, Candidate]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        peers = [
            {
                "peer_id": stage.peer_id,
                "layers": (stage.first, stage.last),
                **_figures(self.candidates[stage.peer_id]),
            }
            for stage in self.plan.stages
        ]
        return {"loop_ms": self.plan.loop_ms, "peers": peers}


def _figures(candidate: Candidate) -> dict[str, float]:
    return {
        "rtt_ms": candidate.rtt_ms,
        "queue_ms": candidate.fixed_ms,
        "layer_ms": candidate.layer_ms,
    }


@dataclass(frozen=True)
class _Known:
    """All peers that may be used for some layers, which are counted from the first of them on; as
    they were when they were asked, whatever is found out about them meanwhile."""

    candidates: Sequence[Candidate]
    records: Mapping[str, PeerRecord]
    reached: Mapping[str, Connection]


class Listing(Protocol):
    """What has to be known of a `Directory`."""

    async def survey(self, fingerprint: str, model_layers: int) -> Sample[PeerRecord]: ...
    async def models(self) -> list[ModelEntry]: ...


class Router:
    """Finds chains for one model.

    Args:
        model: its name, for errors: they reach others, whom it does not concern where the files
            are.
        known: records of peers that were good before: asked first in a large swarm, and used if the
            directory is down.
        ledger: who is suspected to lie: chains have as few of these as can be, one at most if that
            can be.
        clock: seconds, monotonic.
        rng: decides between peers that are equally good.

    Attributes:
        trust: what becomes of peers that are found to lie.

    Any number of generations may ask at once. What each decides by is its own; what is known is
    changed without waiting in between.
    """

    def __init__(
        self,
        directory: Listing,
        connections: Connections,
        checkpoint: Checkpoint,
        model: str,
        health: Health,
        known: Sequence[PeerRecord] = (),
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.health, self.ledger = health, Ledger() if ledger is None else ledger
        self.trust = Trust(self.ledger, health, connections)
        self._clock = clock
        self._rng = rng or random.Random()
        self._directory, self._connections = directory, connections
        self._checkpoint, self._model = checkpoint, model
        self._records = {record.peer_id: record for record in known}
        self._looked_at, self._pause_s = float("-inf"), WATCH_S
        self._watching = asyncio.Lock()
        self._looks: SingleFlight[None, None] = SingleFlight()
        self._outdated: set[str] = set()  # since the look that is under way began
        # when the directory last named each of them
        self._named_at = dict.fromkeys(self._records, float("-inf"))
        self._last: Plan | None = None
        # of peers that answered when they were asked last
        self._rtt_ms = {record.peer_id: 0.0 for record in known}

    @property
    def good(self) -> list[PeerRecord]:
        """The records of all peers that are in order, as far as we know; those of the last chain
        come first."""
        chosen = {stage.peer_id for stage in self._last.stages} if self._last else set()
        good = [
            r
            for r in self._records.values()
            if r.state == "online" and self.health.usable(r.peer_id)
        ]
        return sorted(good, key=lambda record: record.peer_id not in chosen)

    async def chain(self, avoid: Collection[str] = ()) -> list[ChainLink]:
        """The chain with the shortest loop, by all that is known now; the last one again if it is
        nearly as good.

        Raises:
            MissingLayers: if the peers that answer leave layers out.
            WrongWeights: if the model is served, but with other weights.
        """
        known = await self._know_all(avoid)
        chosen = self._last = self._choose(known.candidates)
        links = self._links(chosen, known, 0)
        near, _ = self._nearest(list(self._records.values()))
        await self._connections.keep(
            {*(r.peer_id for r in near), *(link.peer_id for link in links)}, KEEP_S
        )
        return links

    async def choices(self) -> list[Choice]:
        """The chain that is the best now, and the best of those without one of its peers, if there
        is one.

        Raises:
            MissingLayers, WrongWeights: as `chain`.
        """
        layers = self._checkpoint.num_layers
        known = await self._know_all()
        by_id = {candidate.peer_id: candidate for candidate in known.candidates}
        best = plan(known.candidates, layers)
        second = runner_up(best, known.candidates, layers)
        return [
            Choice(each, {stage.peer_id: by_id[stage.peer_id] for stage in each.stages})
            for each in (best, second)
            if each is not None
        ]

    async def span(self, first: int, last: int, avoid: Collection[str]) -> list[ChainLink]:
        """Peers that serve layers ``[first, last)`` together, one after the other, none of
        ``avoid`` among them. Of those that are known already, if that is enough: a generation waits
        for them.

        Raises:
            MissingLayers: if there are none.
        """
        known = await self._know(first, last, avoid, fresh_s=float("inf"))
        return self._links(plan(known.candidates, last - first), known, first)

    async def spare(self, first: int, last: int, avoid: Collection[str]) -> ChainLink | None:
        """The best peer that serves all of the layers ``[first, last)``, none of ``avoid``; None if
        there is none."""
        try:
            known = await self._know(first, last, avoid, fresh_s=float("inf"), last_resort=False)
        except MissingLayers:
            return None
        whole = [
            each
            for each in known.candidates
            if (each.first_layer, each.last_layer) == (0, last - first)
        ]
        return self._links(plan(whole, last - first), known, first)[0] if whole else None

    async def links(self, stages: Sequence[Stage]) -> list[ChainLink]:
        """These stages of a chain that was, if all its peers are still there.

        Raises:
            MissingLayers: if not.
        """
        records = {
            s.peer_id: self._records[s.peer_id] for s in stages if s.peer_id in self._records
        }
        reached = await self._connections.reach(list(records.values()))
        missing = [(stage.first, stage.last) for stage in stages if stage.peer_id not in reached]
        if missing:
            raise MissingLayers(self._model, missing, self._checkpoint.num_layers, len(reached))
        return [
            ChainLink(stage, records[stage.peer_id], reached[stage.peer_id]) for stage in stages
        ]

    async def watch(self) -> None:
        """Look around again and again, until cancelled, so that whoever takes another peer's place
        is known beforehand, and connected. Those who watch at the same time share their looks."""
        while True:
            async with self._watching:
                left_s = self._looked_at + self._pause_s - self._clock()
                if left_s <= 0:
                    # peers that are known are good all the same
                    with contextlib.suppress(DirectoryDown):
                        await self._look()
                    await self._reach(0, self._checkpoint.num_layers, ())
            await asyncio.sleep(left_s if left_s > 0 else self._pause_s)

    def failed(self, peer_id: str) -> None:
        """A peer broke a session or did not answer."""
        self.health.failed(peer_id)

    def broke(self, failure: ChainBroken) -> None:
        """A session could not be had of a peer, or ended with it."""
        if failure.is_failure:
            self.failed(failure.peer_id)
        if failure.is_news:
            self.outdated(failure.peer_id)

    def outdated(self, peer_id: str) -> None:
        """A peer is not as its record says: it is not used before the directory has been asked
        again."""
        self._records.pop(peer_id, None)
        self._outdated.add(peer_id)

    def learn(self, route: Sequence[RouteStop], measured: Mapping[Stage, StageTimes]) -> None:
        """A generation over these peers went well in the end; so long each took that had a part in
        it."""
        for stage, times in measured.items():
            self.health.served(
                stage.peer_id, stage.last - stage.first, times.compute_ms, times.queue_ms
            )
        for stop in route:
            self.health.recovered(stop.peer_id)

    async def _know_all(self, avoid: Collection[str] = ()) -> _Known:
        """Everybody that answers.

        Raises `MissingLayers`; where that is the reason, `WrongWeights` or `OtherQuantization`.
        """
        try:
            return await self._know(0, self._checkpoint.num_layers, avoid, FRESH_S)
        except MissingLayers:
            if not self._records:
                await self._blame_weights()
            raise

    async def _know(
        self,
        first: int,
        last: int,
        avoid: Collection[str],
        fresh_s: float,
        last_resort: bool = True,
    ) -> _Known:
        """Return all peers that answer and serve some of the layers. The directory is asked again
        if that leaves a gap, or if what it said is older than ``fresh_s`` seconds.

        Args:
            last_resort: peers that failed lately are better than none.

        Raises:
            MissingLayers: if that leaves a gap all the same.
        """
        age_s = self._clock() - self._looked_at
        missing: list[tuple[int, int]] = []
        for look in (age_s > fresh_s, True):
            if look:
                await self._look()
            known = await self._reach(first, last, avoid)
            missing = gaps(known.candidates, last - first)
            if not missing:
                return known
        if last_resort:
            known = await self._reach(first, last, avoid, missing)
            missing = gaps(known.candidates, last - first)
            if not missing:
                return known
        spans = [(a + first, b + first) for a, b in missing]
        nobody = gaps(self._serving(first, last), self._checkpoint.num_layers)
        expected = not any(a < end and start < b for a, b in nobody for start, end in spans)
        raise MissingLayers(
            self._model, spans, self._checkpoint.num_layers, len(known.candidates), expected
        )

    async def _look(self) -> None:
        """Ask the directory. Those that want to know at the same time ask once."""
        await self._looks.do(None, self._survey)

    async def _survey(self) -> None:
        checkpoint = self._checkpoint
        self._outdated.clear()
        try:
            found = await self._directory.survey(checkpoint.fingerprint, checkpoint.num_layers)
        except DirectoryDown as error:
            if not self._records:
                raise
            log.warning("going on with the peers that are known: %s", error)
            return
        self._looked_at = now = self._clock()
        self._pause_s = WATCH_S if found.complete else WATCH_LARGE_S
        named = [record for record in found.records if record.peer_id not in self._outdated]
        self._named_at |= {record.peer_id: now for record in named}
        # Where many nodes leave at once, records get lost though their peers are there: they are
        # believed as long as they would have lived. Of a large swarm a look shows a part: those who
        # were near are there still, most likely.
        lately = [
            r for r in self._records.values() if now - self._named_at[r.peer_id] < RECORD_LIFETIME_S
        ]
        near = [] if found.complete else self._nearest(list(self._records.values()))[0]
        self._records = {record.peer_id: record for record in (*near, *lately, *named)}
        self._named_at = {peer_id: self._named_at[peer_id] for peer_id in self._records}

    def _nearest(self, records: Sequence[PeerRecord]) -> tuple[list[PeerRecord], list[PeerRecord]]:
        """The nearest of those that have answered before, and all others."""
        measured = [record for record in records if record.peer_id in self._rtt_ms]
        near = sorted(measured, key=lambda record: self._rtt_ms[record.peer_id])[:NEAREST]
        ids = {record.peer_id for record in near}
        return near, [record for record in records if record.peer_id not in ids]

    def _serving(self, first: int, last: int) -> list[PeerRecord]:
        """Whoever serves some of these layers, or will when it has loaded them."""
        return [r for r in self._records.values() if r.first_layer < last and first < r.last_layer]

    async def _reach(
        self, first: int, last: int, avoid: Collection[str], missing: Sequence[tuple[int, int]] = ()
    ) -> _Known:
        """Return the peers that answer and serve some of the layers.

        Args:
            missing: layers, counted from ``first``, for which peers count that failed lately.
        """
        usable = [
            record
            for record in self._serving(first, last)
            if record.state == "online"
            and record.peer_id not in avoid
            and (self.health.usable(record.peer_id) or self._last_resort(record, first, missing))
        ]
        near, others = self._nearest(usable)
        others = candidates(others)
        reached = {
            peer_id: connection
            for some in await asyncio.gather(
                self._connections.reach(near), self._connections.reach(others)
            )
            for peer_id, connection in some.items()
        }
        for record in (*near, *others):
            if record.peer_id not in reached:
                if self.health.usable(record.peer_id):
                    self.health.failed(record.peer_id)
                self._rtt_ms.pop(record.peer_id, None)
        self._rtt_ms |= {peer_id: connection.rtt_ms for peer_id, connection in reached.items()}
        self._rtt_ms = dict(sorted(self._rtt_ms.items(), key=lambda each: each[1])[:MAX_MEASURED])
        # some are by now
        there = [r for r in usable if r.peer_id in reached and not self.health.banned(r.peer_id)]
        self._rng.shuffle(there)  # of equals, clients take different ones
        ids = {neighbour_key(record.peer_id): record.peer_id for record in there}
        found = [
            self._candidate(record, reached[record.peer_id].rtt_ms, ids, first, last)
            for record in there
        ]
        return _Known(found, {record.peer_id: record for record in there}, reached)

    def _last_resort(
        self, record: PeerRecord, first: int, missing: Sequence[tuple[int, int]]
    ) -> bool:
        """Whether a peer that is left alone serves layers that no other peer does."""
        serves = any(
            record.first_layer < first + end and first + start < record.last_layer
            for start, end in missing
        )
        return serves and self.health.permitted(record.peer_id)

    def _candidate(
        self, record: PeerRecord, rtt_ms: float, ids: Mapping[str, str], first: int, last: int
    ) -> Candidate:
        """A peer's part of layers ``[first, last)``, counted from ``first`` on.

        What was measured replaces what the peer says of itself.
        """
        layers = record.last_layer - record.first_layer
        layer_ms, queue_ms = (
            self.health.layer_ms(record.peer_id),
            self.health.queue_ms(record.peer_id),
        )
        return Candidate(
            record.peer_id,
            max(record.first_layer - first, 0),
            min(record.last_layer, last) - first,
            rtt_ms=rtt_ms,
            fixed_ms=record.queue_ms if queue_ms is None else queue_ms,
            layer_ms=1e3 / max(record.tokens_per_second, 1e-3) / layers
            if layer_ms is None
            else layer_ms,
            neighbours_ms={
                ids[key]: tenths / 10 for key, tenths in record.neighbours if key in ids
            },
        )

    def _choose(self, candidates: Sequence[Candidate]) -> Plan:
        """The best chain; where that can be, without the worse of those who accuse each other, and
        with one suspect at most: so it comes out who it was."""
        layers = self._checkpoint.num_layers
        for worse in self.ledger.worse:
            candidates = _without(worse, candidates, layers)
        while True:
            found = self._stay(plan(candidates, layers), candidates)
            chosen = {stage.peer_id for stage in found.stages}
            doubtful = [peer_id for peer_id in self.ledger.suspects if peer_id in chosen][:-1]
            fewer = next(
                (c for each in doubtful if (c := _without(each, candidates, layers)) != candidates),
                None,
            )
            if fewer is None:
                return found
            candidates = fewer

    def _stay(self, found: Plan, candidates: Sequence[Candidate]) -> Plan:
        """The last chain, if it is still there and nearly as good as the one that was found."""
        again = cost(self._last.stages, candidates) if self._last else None
        if self._last is None or again is None or again > STICKY * found.loop_ms:
            return found
        return replace(self._last, loop_ms=again)

    def _links(self, found: Plan, known: _Known, first: int) -> list[ChainLink]:
        return [
            ChainLink(
                Stage(stage.peer_id, stage.first + first, stage.last + first),
                known.records[stage.peer_id],
                known.reached[stage.peer_id],
            )
            for stage in found.stages
        ]

    async def _blame_weights(self) -> None:
        """Nobody serves our fingerprint: say so if somebody serves the same weights stored another
        way, or others by the model's name.
        """
        checkpoint, models = self._checkpoint, await self._directory.models()
        siblings = checkpoint.siblings
        served = [siblings[m.fingerprint] for m in models if m.fingerprint in siblings]
        if served:
            asked = checkpoint.quantization.name if checkpoint.quantization else "none"
            raise OtherQuantization(self._model, asked, served)
        others = [m.fingerprint for m in models if m.model == checkpoint.name]
        if others:
            raise WrongWeights(self._model, checkpoint.fingerprint, others)


def _without(peer_id: str, candidates: Sequence[Candidate], layers: int) -> Sequence[Candidate]:
    """The others, if they serve all layers; else all of them."""
    others = [candidate for candidate in candidates if candidate.peer_id != peer_id]
    return candidates if gaps(others, layers) else others
