"""Which peers: the directory is read, peers are asked whether they answer, a chain is chosen.

What is known of the peers is in the book (`swarm.chain.book`), which knows no network; how to
choose among them is in `swarm.chain.choice`.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from swarm.audit.ledger import Ledger
from swarm.chain.book import PeerBook, Span, Wanted
from swarm.chain.choice import Choice, best_two, choose, replacement, second
from swarm.chain.stage import ChainLink
from swarm.chain.trust import Trust
from swarm.errors import ChainBroken, DirectoryDown, MissingLayers, OtherQuantization, WrongWeights
from swarm.network.dht.crawl import CrawlSample
from swarm.network.dht.lookup import ModelEntry
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.pool import Connections, candidates
from swarm.outputs import RouteStop, StageTimes
from swarm.routing.chain import Stage, gaps
from swarm.routing.health import Health
from swarm.routing.plan import Candidate, Route
from swarm.routing.taps import Tapping
from swarm.util.singleflight import SingleFlight

if TYPE_CHECKING:  # it imports transformers, which `swarm status` does not need
    from swarm.model.checkpoint import Checkpoint

WATCH_S = 5.0  # between surveys of the directory while a text is written
WATCH_LARGE_S = 60.0  # where a survey shows only a part of the swarm: there are spares enough
# for so long a survey is believed; a peer that is gone by then is noticed anyhow
FRESH_S = 10.0
KEEP_S = 30.0  # a connection that was just found: a session may be about to open on it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    """The peers that answered one search.

    They are as they were when they were asked, whatever else is found out about them meanwhile.

    Attributes:
        candidates: layers are counted from ``first`` on.
    """

    first: int
    candidates: Sequence[Candidate]
    records: Mapping[str, PeerRecord]
    connections: Mapping[str, Connection]

    def links(self, chosen: Route) -> list[ChainLink]:
        """The stages of a plan over these candidates, with the connections to their peers."""
        return [
            ChainLink(
                Stage(stage.peer_id, stage.first + self.first, stage.last + self.first),
                self.records[stage.peer_id],
                self.connections[stage.peer_id],
            )
            for stage in chosen.stages
        ]


class PeerDirectory(Protocol):
    """The part of a `Directory` that a router reads."""

    async def survey(self, fingerprint: str, model_layers: int) -> CrawlSample[PeerRecord]: ...
    async def models(self) -> list[ModelEntry]: ...


class Router:
    """Finds chains for one model.

    Any number of generations may ask at once, each with peers of its own to avoid. They share the
    surveys of the directory, and the book changes without an await in between.

    Args:
        directory: names the peers.
        connections: to the peers that answer.
        checkpoint: the model.
        book: what is known of the model's peers. Peers that were good before are asked first in a
            large swarm, and used if the directory is down.
        ledger: which peers are suspected to lie. A chain has as few of them as possible.
        clock: seconds, monotonic; the one that the book's times come from.
        rng: decides between peers that are equally good.

    Attributes:
        trust: bans peers that are found to lie.
    """

    def __init__(
        self,
        directory: PeerDirectory,
        connections: Connections,
        checkpoint: "Checkpoint",
        book: PeerBook,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.book = book
        self.ledger = Ledger() if ledger is None else ledger
        self.trust = Trust(self.ledger, book.health, connections)
        self._directory = directory
        self._connections = connections
        self._checkpoint = checkpoint
        self._clock = clock
        self._rng = rng or random.Random()
        self._watching = asyncio.Lock()
        self._surveys: SingleFlight[None, None] = SingleFlight()
        self._last: Route | None = None

    @property
    def health(self) -> Health:
        """Failures, bans and stage times of peers."""
        return self.book.health

    @property
    def good(self) -> list[PeerRecord]:
        """The records of all peers that could be used now; those of the last chain come first."""
        return self.book.good({stage.peer_id for stage in self._last.stages} if self._last else ())

    # Chains and parts of chains.

    async def chain(
        self, avoid: Collection[str] = (), tapping: Tapping | None = None
    ) -> list[ChainLink]:
        """Return the best chain that is known now; the last one again if it is nearly as good.

        Args:
            tapping: which outputs of layers its peers should tell.

        Raises:
            MissingLayers: if the peers that answer leave layers out.
            WrongWeights: if the model is served, but with other weights.
            OtherQuantization: if the weights are served, but stored another way.
        """
        found = await self._whole_model(avoid)
        layers = self._checkpoint.num_layers
        chosen = choose(found.candidates, layers, self._last, self.ledger, tapping)
        self._last = chosen
        links = found.links(chosen)
        kept = {record.peer_id for record in self.book.nearest}
        await self._connections.keep(kept | {link.peer_id for link in links}, KEEP_S)
        return links

    async def choices(self) -> list[Choice]:
        """Return the chain that is the best now, and the best one without one of its peers, if
        there is one.

        Raises:
            MissingLayers, WrongWeights, OtherQuantization: as `chain`.
        """
        found = await self._whole_model()
        return best_two(found.candidates, self._checkpoint.num_layers)

    async def span(
        self, first: int, last: int, avoid: Collection[str], dtype: str | None = None
    ) -> list[ChainLink]:
        """Return peers that serve layers ``[first, last)`` together, one after the other.

        Peers that are known already are preferred to a survey: a generation waits for the answer.

        Args:
            dtype: that is preferred; see `replacement`.

        Raises:
            MissingLayers: if there are none.
        """
        wanted = Wanted(first, last, frozenset(avoid))
        found = await self._find(wanted, fresh_s=float("inf"))
        return found.links(replacement(found.candidates, last - first, dtype))

    async def spare(
        self, first: int, last: int, avoid: Collection[str], dtype: str
    ) -> ChainLink | None:
        """Return the best peer that serves all of the layers ``[first, last)``, one of the dtype if
        there is one; None if there is none at all."""
        wanted = Wanted(first, last, frozenset(avoid))
        try:
            found = await self._find(wanted, fresh_s=float("inf"), last_resort=False)
        except MissingLayers:
            return None
        chosen = second(found.candidates, last - first, dtype)
        return found.links(chosen)[0] if chosen else None

    async def links(self, stages: Sequence[Stage]) -> list[ChainLink]:
        """Return these stages of an earlier chain with their connections.

        Raises:
            MissingLayers: if one of the peers does not answer or is not known any more.
        """
        known = self.book.records
        records = {s.peer_id: known[s.peer_id] for s in stages if s.peer_id in known}
        reached = await self._connections.reach(list(records.values()))
        missing = [(stage.first, stage.last) for stage in stages if stage.peer_id not in reached]
        if missing:
            raise self._missing(missing, len(reached))
        return [
            ChainLink(stage, records[stage.peer_id], reached[stage.peer_id]) for stage in stages
        ]

    async def watch(self) -> None:
        """Survey and connect again and again, until cancelled, so that a peer that takes another
        one's place is known beforehand. Concurrent watchers share their surveys."""
        while True:
            async with self._watching:
                pause_s = WATCH_S if self.book.complete else WATCH_LARGE_S
                left_s = self.book.surveyed_at_s + pause_s - self._clock()
                if left_s <= 0:
                    # peers that are known are good all the same
                    with contextlib.suppress(DirectoryDown):
                        await self._survey()
                    await self._reach(Wanted(0, self._checkpoint.num_layers))
            await asyncio.sleep(left_s if left_s > 0 else pause_s)

    # What generations find out.

    def failed(self, peer_id: str) -> None:
        """A peer broke a session or did not answer."""
        self.book.failed(peer_id)

    def broke(self, failure: ChainBroken) -> None:
        """A peer refused a session or ended it."""
        if failure.is_failure:
            self.book.failed(failure.peer_id)
        if failure.is_news:
            self.book.outdated(failure.peer_id)

    def outdated(self, peer_id: str) -> None:
        """A peer is not as its record says: do not use it until the directory names it anew."""
        self.book.outdated(peer_id)

    def learn(self, route: Sequence[RouteStop], measured: Mapping[Stage, StageTimes]) -> None:
        """A generation over the peers of ``route`` went well; see `PeerBook.learn`."""
        self.book.learn(route, measured)

    # Look, reach.

    async def _whole_model(self, avoid: Collection[str] = ()) -> _Found:
        """Find peers for all layers.

        Raises:
            MissingLayers, WrongWeights, OtherQuantization: as `chain`.
        """
        try:
            wanted = Wanted(0, self._checkpoint.num_layers, frozenset(avoid))
            return await self._find(wanted, FRESH_S)
        except MissingLayers:
            if not self.book.records:
                await self._check_weights()
            raise

    async def _find(self, wanted: Wanted, fresh_s: float, last_resort: bool = True) -> _Found:
        """Return all peers that answer and serve some of the wanted layers.

        It tries until no layer is left out: with what is known, unless the last survey is older
        than ``fresh_s`` seconds; with a new survey; and, as the ``last_resort``, with peers that
        failed lately.

        Raises:
            MissingLayers: if a gap is left all the same.
        """
        layers = wanted.last - wanted.first
        stale = self._clock() - self.book.surveyed_at_s > fresh_s
        tries = [(False, False), (True, False), (False, True)]
        missing: list[Span] = []
        for survey, resort in tries[1 if stale else 0 : 3 if last_resort else 2]:
            if survey:
                await self._survey()
            found = await self._reach(wanted, missing if resort else ())
            missing = [
                (first + wanted.first, last + wanted.first)
                for first, last in gaps(found.candidates, layers)
            ]
            if not missing:
                return found
        raise self._missing(missing, len(found.candidates), self.book.promised(missing))

    async def _survey(self) -> None:
        """Read the directory. Concurrent callers share one survey."""
        await self._surveys.do(None, self._read_directory)

    async def _read_directory(self) -> None:
        checkpoint = self._checkpoint
        self.book.survey_began()
        try:
            found = await self._directory.survey(checkpoint.fingerprint, checkpoint.num_layers)
        except DirectoryDown as error:
            if not self.book.records:
                raise
            log.warning("going on with the peers that are known: %s", error)
            return
        self.book.surveyed(found.records, found.complete, self._clock())

    async def _reach(self, wanted: Wanted, unserved: Sequence[Span] = ()) -> _Found:
        """Ask peers whether they answer, and return those that do.

        Args:
            unserved: layers for which peers count, too, that failed lately.
        """
        near, others = self.book.to_ask(wanted, unserved)
        others = candidates(others, rng=self._rng)
        answers = await asyncio.gather(
            self._connections.reach(near), self._connections.reach(others)
        )
        reached = answers[0] | answers[1]
        rtt_ms = {peer_id: connection.rtt_ms for peer_id, connection in reached.items()}
        self.book.answered((*near, *others), rtt_ms)
        there = [record for record in (*near, *others) if record.peer_id in reached]
        self._rng.shuffle(there)  # of equals, clients take different ones
        return _Found(
            wanted.first,
            self.book.candidates(wanted, there, rtt_ms),
            {record.peer_id: record for record in there},
            reached,
        )

    def _missing(self, spans: Sequence[Span], peers: int, expected: bool = False) -> MissingLayers:
        checkpoint = self._checkpoint
        return MissingLayers(
            checkpoint.plain_name,
            tuple(spans),
            checkpoint.num_layers,
            peers,
            expected,
            self.book.needs_head,
        )

    async def _check_weights(self) -> None:
        """Raise `OtherQuantization` or `WrongWeights` if the network serves the same weights stored
        another way, or others by the model's name."""
        checkpoint = self._checkpoint
        models = await self._directory.models()
        siblings = checkpoint.siblings
        served = [siblings[m.fingerprint] for m in models if m.fingerprint in siblings]
        if served:
            asked = checkpoint.quantization.name if checkpoint.quantization else "none"
            raise OtherQuantization(checkpoint.plain_name, asked, tuple(served))
        others = [m.fingerprint for m in models if m.model == checkpoint.name]
        if others:
            raise WrongWeights(checkpoint.plain_name, checkpoint.fingerprint, tuple(others))
