"""Lookups over a crawl: the peers of a model, and the models of a network."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarm.network.dht.crawl import Crawl, CrawlSample
from swarm.network.dht.keys import LIST_SIGNPOST, Shard, block_count, models_key, span_key
from swarm.network.dht.records import ModelRecord, PeerRecord, Record
from swarm.network.dht.slots import LISTED

R = TypeVar("R", PeerRecord, ModelRecord)

ENOUGH_PEERS = 256  # records with which a reader stops, if they cover the model
ENOUGH_ENTRIES = 1024  # of the list of models

# under each key, records and when they expire
RecordsByKey = Mapping[str, Sequence[tuple[Record, float]]]


@dataclass(frozen=True)
class ModelEntry:
    """A model that the swarm serves, wholly or in part.

    ``peers``: how many of its peers are in the list of models. Only the first few list themselves,
    so `LISTED` may stand for any number.
    """

    model: str
    fingerprint: str
    model_layers: int
    peers: int

    @property
    def crowd(self) -> str:
        """The number of peers, in words."""
        if self.peers >= LISTED:
            return f"{LISTED} peers or more"
        return "1 peer" if self.peers == 1 else f"{self.peers} peers"


class PeerLookup:
    """Finds the peers of one model.

    Read the keys that are `wanted` and pass the records to `saw`, until no key is wanted. Then call
    `sample`.
    """

    def __init__(
        self, network: str, fingerprint: str, model_layers: int, enough: int, rng: random.Random
    ) -> None:
        self._network = network
        self._fingerprint = fingerprint
        self._layers = model_layers
        self._newest: dict[str, float] = {}  # when each peer's last record expires
        self._asked: dict[str, Shard] = {}
        self._survey: Crawl[tuple[PeerRecord, float]] = Crawl(
            range(block_count(model_layers)),
            enough,
            rng,
            counts=self._counts,
            satisfied=lambda found: covers(
                (r for r, _ in found if r.state == "online"), model_layers
            ),
        )

    def wanted(self) -> list[str]:
        """Return the keys to read next; none when the lookup is done."""
        self._asked = {
            span_key(self._network, self._fingerprint, shard): shard
            for shard in self._survey.wanted()
        }
        return list(self._asked)

    def saw(self, found: RecordsByKey) -> None:
        """Note the records under the keys that were wanted."""
        for key, records in found.items():
            ours = _of_kind(PeerRecord, records)
            for record, expiration in ours:
                self._newest[record.peer_id] = max(
                    expiration, self._newest.get(record.peer_id, 0.0)
                )
            self._survey.saw({self._asked[key]: ours})

    def sample(self) -> CrawlSample[PeerRecord]:
        """Return a sample of the peers, in the order of their spans."""
        found = self._survey.sample()
        order = sorted(
            zip(found.records, found.weights, strict=True), key=lambda each: _place(each[0][0])
        )
        return CrawlSample(
            tuple(r for (r, _), _ in order), tuple(w for _, w in order), found.total, found.complete
        )

    def _counts(self, found: tuple[PeerRecord, float]) -> bool:
        record, expiration = found
        newest = expiration == self._newest[record.peer_id]
        return newest and record.state != "offline" and record.model_layers == self._layers


class ModelLookup:
    """Finds the models of a network. Used as `PeerLookup` is."""

    def __init__(self, network: str, rng: random.Random) -> None:
        self._network = network
        self._newest: dict[tuple[str, str], tuple[ModelRecord, float]] = {}
        self._asked: dict[str, Shard] = {}
        self._survey: Crawl[ModelRecord] = Crawl([0], ENOUGH_ENTRIES, rng, signpost=LIST_SIGNPOST)

    def wanted(self) -> list[str]:
        """Return the keys to read next; none when the lookup is done."""
        self._asked = {
            models_key(self._network, shard.path): shard for shard in self._survey.wanted()
        }
        return list(self._asked)

    def saw(self, found: RecordsByKey) -> None:
        """Note the records under the keys that were wanted."""
        for key, records in found.items():
            ours = _of_kind(ModelRecord, records)
            for record, expiration in ours:
                who = record.fingerprint, record.peer_id
                if who not in self._newest or expiration > self._newest[who][1]:
                    self._newest[who] = record, expiration
            self._survey.saw({self._asked[key]: [record for record, _ in ours]})

    def models(self) -> list[ModelEntry]:
        """Return the models, most peers first.

        Where peers disagree on the name of a fingerprint, the majority decides.
        """
        claims: defaultdict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
        for record, _ in self._newest.values():
            if record.state != "offline":
                claims[record.fingerprint][record.model, record.model_layers] += 1
        models = []
        for fingerprint, claim in claims.items():
            (model, model_layers), _ = claim.most_common(1)[0]
            models.append(ModelEntry(model, fingerprint, model_layers, peers=claim.total()))
        return sorted(models, key=lambda entry: (-entry.peers, entry.model))


def _of_kind(kind: type[R], records: Iterable[tuple[Record, float]]) -> list[tuple[R, float]]:
    """Return the records of one kind, each with its expiration."""
    return [(record, expiration) for record, expiration in records if isinstance(record, kind)]


class HasSpan(Protocol):
    """Anything that serves layers ``[first_layer, last_layer)``."""

    @property
    def first_layer(self) -> int: ...
    @property
    def last_layer(self) -> int: ...


def covers(peers: Iterable[HasSpan], model_layers: int) -> bool:
    """Return whether every layer is served by a peer."""
    reached = 0
    for first, last in sorted({(peer.first_layer, peer.last_layer) for peer in peers}):
        if first > reached:
            break
        reached = max(reached, last)
    return reached >= model_layers


def _place(record: PeerRecord) -> tuple[int, int, str]:
    return record.first_layer, record.last_layer, record.peer_id
