"""What one client knows of the peers that serve one model.

Pure: the router tells the book what the directory named, which peers answered and what was
measured, and asks it whom to use. Nothing here waits, dials or reads a clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm.network.dht.records import RECORD_LIFETIME_S, PeerRecord, neighbour_key
from swarm.outputs import RouteStop, StageTimes
from swarm.routing.chain import Stage, gaps
from swarm.routing.cuts import Cuts
from swarm.routing.health import Health
from swarm.routing.plan import Candidate
from swarm.wire.codec import speaks
from swarm.wire.messages import Tapped

NEAREST = 64  # peers whose round trip is the shortest: they are asked again in every search
MAX_MEASURED = 4 * NEAREST  # round trips that are remembered, the shortest ones

Span = tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """Layers ``[first, last)`` that peers are sought for, by one generation for itself.

    Attributes:
        avoid: ids of peers that must not be among them.
    """

    first: int
    last: int
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Named:
    """A record, and when the directory named it last; never, if it was known from before."""

    record: PeerRecord
    at_s: float


class PeerBook:
    """The book on all peers of one model.

    Times are seconds of one monotonic clock, the caller's.

    Args:
        model_layers: how many layers the model has.
        health: failures, bans and stage times of peers.
        known: records of peers that served the model before, as the client remembers them. They
            count as near until they have been asked once.
        needs_head: the last layer counts only where the peer holds the model's head, too.
        cuts: where the model may be cut, if not anywhere.

    Attributes:
        surveyed_at_s: when the directory was read last; negative infinity if it never was.
        complete: whether the directory named all peers, and not a sample of a large swarm.
    """

    def __init__(
        self,
        model_layers: int,
        health: Health,
        known: Iterable[PeerRecord] = (),
        needs_head: bool = False,
        cuts: Cuts | None = None,
    ) -> None:
        self.health = health
        self.needs_head = needs_head
        self.surveyed_at_s = float("-inf")
        self.complete = True
        self._model_layers = model_layers
        self._cuts = cuts or Cuts.anywhere(model_layers)
        self._named = {record.peer_id: _Named(record, float("-inf")) for record in known}
        self._rtt_ms = dict.fromkeys(self._named, 0.0)
        self._outdated: set[str] = set()  # since the survey that is under way began

    # What the directory says.

    def survey_began(self) -> None:
        """The directory is being read: what becomes outdated from now on is newer than its
        answer."""
        self._outdated.clear()

    def surveyed(self, records: Iterable[PeerRecord], complete: bool, at_s: float) -> None:
        """The directory named these peers.

        Where many DHT nodes leave at once, records get lost although their peers are there. So a
        record that is not named again stays as long as it would have lived in the DHT. A survey of
        a large swarm shows only a part of it; there the nearest peers stay, too.
        """
        self.surveyed_at_s = at_s
        self.complete = complete
        near = set() if complete else {record.peer_id for record in self.nearest}
        stays = {
            peer_id: named
            for peer_id, named in self._named.items()
            if peer_id in near or at_s - named.at_s < RECORD_LIFETIME_S
        }
        found = {
            record.peer_id: _Named(record, at_s)
            for record in records
            if record.peer_id not in self._outdated
        }
        near_first = sorted(stays, key=lambda peer_id: peer_id not in near)
        self._named = {peer_id: stays[peer_id] for peer_id in near_first} | found

    def outdated(self, peer_id: str) -> None:
        """A peer is not as its record says: do not use it until the directory names it anew."""
        self._named.pop(peer_id, None)
        self._outdated.add(peer_id)

    @property
    def records(self) -> Mapping[str, PeerRecord]:
        """The records of all known peers by peer id."""
        return {peer_id: named.record for peer_id, named in self._named.items()}

    def promised(self, spans: Iterable[Span]) -> bool:
        """Return whether known peers serve all of these layers, or will when they have loaded them;
        they may not answer now."""
        unserved = gaps(
            [
                named.record.model_copy(update={"last_layer": self._last_layer(named.record)})
                for named in self._named.values()
            ],
            self._model_layers,
        )
        return not any(a < last and first < b for a, b in unserved for first, last in spans)

    # Whom to ask, and who answered.

    def to_ask(
        self, wanted: Wanted, unserved: Sequence[Span] = ()
    ) -> tuple[list[PeerRecord], list[PeerRecord]]:
        """Return the peers that may serve some of the layers: the nearest ones, and all others.

        Args:
            unserved: layers for which peers count, too, that failed lately; banned ones never do.
        """
        usable = [
            record
            for record in (named.record for named in self._named.values())
            if record.state == "online"
            and self._overlap(record, wanted.first, wanted.last)
            and record.peer_id not in wanted.avoid
            and (self.health.usable(record.peer_id) or self._last_resort(record, unserved))
        ]
        near = self._nearest_of(usable)
        ids = {record.peer_id for record in near}
        return near, [record for record in usable if record.peer_id not in ids]

    def answered(self, asked: Iterable[PeerRecord], rtt_ms: Mapping[str, float]) -> None:
        """Of the peers that were asked, those in ``rtt_ms`` answered; the others failed.

        A failure that several searches see at once counts once.

        Args:
            rtt_ms: round trips by peer id.
        """
        for record in asked:
            if record.peer_id in rtt_ms:
                continue
            if self.health.usable(record.peer_id):
                self.health.failed(record.peer_id)
            self._rtt_ms.pop(record.peer_id, None)
        measured = self._rtt_ms | dict(rtt_ms)
        self._rtt_ms = dict(sorted(measured.items(), key=lambda each: each[1])[:MAX_MEASURED])

    def candidates(
        self, wanted: Wanted, there: Sequence[PeerRecord], rtt_ms: Mapping[str, float]
    ) -> list[Candidate]:
        """Return what the planner has to know of the peers that answered, in their order.

        Layers are counted from ``wanted.first`` on. Peers that were banned meanwhile are left out.
        """
        honest = [record for record in there if not self.health.banned(record.peer_id)]
        ids = {neighbour_key(record.peer_id): record.peer_id for record in honest}
        return [self._candidate(record, rtt_ms[record.peer_id], ids, wanted) for record in honest]

    @property
    def nearest(self) -> list[PeerRecord]:
        """The `NEAREST` peers with the shortest round trips, among those that answered when they
        were asked last."""
        return self._nearest_of([named.record for named in self._named.values()])

    # What was measured.

    def failed(self, peer_id: str) -> None:
        """A peer broke a session or did not answer."""
        self.health.failed(peer_id)

    def learn(self, route: Sequence[RouteStop], measured: Mapping[Stage, StageTimes]) -> None:
        """A generation over the peers of ``route`` went well.

        Args:
            measured: times of every stage that took part in it. They belong to the peer that
                computed the stage, wherever in the chain it was.
        """
        for stage, times in measured.items():
            self.health.served(
                stage.peer_id, stage.last - stage.first, times.compute_ms, times.queue_ms
            )
        for stop in route:
            self.health.recovered(stop.peer_id)

    def good(self, first: Collection[str] = ()) -> list[PeerRecord]:
        """Return the records of all peers that could be used now; those of ``first`` (peer ids)
        come first."""
        good = [
            named.record
            for peer_id, named in self._named.items()
            if named.record.state == "online" and self.health.usable(peer_id)
        ]
        return sorted(good, key=lambda record: record.peer_id not in first)

    def _nearest_of(self, records: Iterable[PeerRecord]) -> list[PeerRecord]:
        measured = [record for record in records if record.peer_id in self._rtt_ms]
        return sorted(measured, key=lambda record: self._rtt_ms[record.peer_id])[:NEAREST]

    def _last_resort(self, record: PeerRecord, unserved: Sequence[Span]) -> bool:
        """Whether a peer that failed lately serves layers that no other peer does."""
        return self.health.permitted(record.peer_id) and any(
            self._overlap(record, first, last) for first, last in unserved
        )

    def _candidate(
        self, record: PeerRecord, rtt_ms: float, ids: Mapping[str, str], wanted: Wanted
    ) -> Candidate:
        """One peer's part of the wanted layers. What was measured replaces what the peer says of
        itself.

        Args:
            ids: peer ids by the keys that stand for them in records.
        """
        layer_ms = self.health.layer_ms(record.peer_id)
        if layer_ms is None:
            layers = record.last_layer - record.first_layer
            layer_ms = 1e3 / max(record.tokens_per_second, 1e-3) / layers
        queue_ms = self.health.queue_ms(record.peer_id)
        return Candidate(
            record.peer_id,
            max(self._first_layer(record) - wanted.first, 0),
            min(self._last_layer(record), wanted.last) - wanted.first,
            rtt_ms=rtt_ms,
            fixed_ms=record.queue_ms if queue_ms is None else queue_ms,
            layer_ms=layer_ms,
            neighbours_ms={
                ids[key]: tenths / 10 for key, tenths in record.neighbours if key in ids
            },
            dtype=record.dtype,
            taps=speaks(record.protocol, Tapped),
        )

    def _first_layer(self, record: PeerRecord) -> int:
        """From which layer on a peer is of use."""
        return next(each for each in self._cuts.borders if each >= record.first_layer)

    def _last_layer(self, record: PeerRecord) -> int:
        """Up to which layer a peer is of use."""
        lacks_head = self.needs_head and not record.head
        most = self._model_layers - 1 if lacks_head else record.last_layer
        return max(each for each in self._cuts.borders if each <= min(record.last_layer, most))

    def _overlap(self, record: PeerRecord, first: int, last: int) -> bool:
        """Whether a peer serves some of the layers ``[first, last)``."""
        return max(first, self._first_layer(record)) < min(last, self._last_layer(record))
