import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helpers.records import peer_record
from swarm.identity import Identity
from swarm.network.dht.lookup import (
    HasSpan,
    ModelEntry,
    ModelLookup,
    PeerLookup,
    RecordsByKey,
    covers,
)
from swarm.network.dht.records import PeerRecord, Record
from swarm.network.dht.slots import LISTED
from swarm.routing.chain import Stage, gaps

A, B, C = (Identity.generate().peer_id for _ in range(3))


def record_of(peer_id: str, first: int = 0, last: int = 4, **changes: Any) -> PeerRecord:
    return peer_record(peer_id, **({"first_layer": first, "last_layer": last} | changes))


def under(*records: tuple[Record, float]) -> RecordsByKey:
    found: dict[str, list[tuple[Record, float]]] = {}
    for record, expiration in records:
        found.setdefault(record.key(), []).append((record, expiration))
    return found


def peers(found: RecordsByKey) -> list[str]:
    lookup = PeerLookup("test", "0" * 32, 8, 100, random.Random(0))
    while keys := lookup.wanted():
        lookup.saw({key: found.get(key, []) for key in keys})
    sample = lookup.sample()
    assert sample.complete
    assert sample.total == len(sample.records)
    return [record.peer_id for record in sample.records]


def test_peers_come_in_order_of_their_spans() -> None:
    assert peers(
        under((record_of(C, 6, 8), 9.0), (record_of(A, 1, 2), 9.0), (record_of(B, 0, 2), 9.0))
    ) == [B, A, C]


def test_of_a_peer_that_moved_only_the_newest_record_counts() -> None:
    assert peers(
        under((record_of(A, 0, 4, state="offline"), 8.999), (record_of(A, 4, 8), 9.0))
    ) == [A]
    assert peers(under((record_of(A, 0, 4), 5.0), (record_of(A, 4, 8, state="offline"), 9.0))) == []
    assert peers(under((record_of(A, 0, 4), 5.0), (record_of(A, 4, 8), 9.0))) == [A]


def test_records_of_another_shape_of_the_model_do_not_count() -> None:
    assert peers(under((record_of(A, model_layers=4), 9.0), (record_of(B), 9.0))) == [B]


def models(*records: PeerRecord) -> list[ModelEntry]:
    lookup = ModelLookup("test", random.Random(0))
    found = under(*((record.model_record(), 9.0) for record in records))
    while keys := lookup.wanted():
        lookup.saw({key: found.get(key, []) for key in keys})
    return lookup.models()


def test_the_majority_names_a_model() -> None:
    named = [record_of(A), record_of(B, model="lie"), record_of(C)]
    other = record_of(A, fingerprint="1" * 32, model="other", model_layers=4)
    assert models(*named, other) == [
        ModelEntry("demo", "0" * 32, 8, 3),
        ModelEntry("other", "1" * 32, 4, 1),
    ]
    assert models(record_of(A, state="offline")) == []


def test_the_list_does_not_pretend_to_know_how_many_there_are() -> None:
    assert [
        ModelEntry("m", "0", 1, peers).crowd for peers in (1, LISTED - 1, LISTED, 2 * LISTED)
    ] == [
        "1 peer",
        f"{LISTED - 1} peers",
        f"{LISTED} peers or more",
        f"{LISTED} peers or more",
    ]


class Span(Stage):
    @property
    def first_layer(self) -> int:
        return self.first

    @property
    def last_layer(self) -> int:
        return self.last


spans = st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda span: span[0] < span[1])


@given(st.lists(spans, max_size=6), st.integers(1, 10))
def test_to_cover_is_to_leave_no_gap(some: list[tuple[int, int]], layers: int) -> None:
    peers: list[HasSpan] = [Span("p", *span) for span in some]
    assert covers(peers, layers) == (not gaps(peers, layers))  # type: ignore[arg-type]
