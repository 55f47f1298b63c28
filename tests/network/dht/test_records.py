import contextlib
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from swarm.errors import InvalidRecord
from swarm.network.dht.keys import MAX_DEPTH, way_of
from swarm.network.dht.records import MAX_RECORD_BYTES, PeerRecord, Record, decode, encode, keys

PEER_ID = "12D3KooWRHdv39CS4pr2WAuFzmzJzfNbJyequC8N2mtYNiEyk3xd"  # any, but always the same one
PLACE = f"/ip4/203.0.113.255/tcp/31337/p2p/{PEER_ID}/p2p-circuit/p2p/{PEER_ID}"
GOOD: dict[str, Any] = {
    "peer_id": PEER_ID,
    "network": "test",
    "model": "org/model-7B",
    "fingerprint": "0" * 32,
    "model_layers": 8,
    "first_layer": 2,
    "last_layer": 4,
    "dtype": "bfloat16",
    "addresses": ("127.0.0.1:9000", "[::1]:9000", "host.example.org:1"),
    "certificate": "a" * 64,
    "tokens_per_second": 12.5,
    "free_cache_tokens": 4096,
    "queue_ms": 1.5,
    "neighbours": (("A" * 10, 204),),
    "state": "online",
    "software": "0.1.0",
    "protocol": 1,
}

spans = st.integers(1, 1000).flatmap(
    lambda layers: st.integers(0, layers - 1).flatmap(
        lambda first: st.tuples(st.just(layers), st.just(first), st.integers(first + 1, layers))
    )
)


@given(
    spans,
    st.sampled_from(["joining", "online", "draining", "offline"]),
    st.floats(0, 1e9),
    st.integers(0, 2**48),
    st.lists(st.integers(1, 65535).map("10.0.0.1:{}".format), min_size=1, max_size=8),
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/-]{0,95}\Z"),
)
def test_a_record_comes_back_as_it_was(
    span: tuple[int, int, int],
    state: str,
    speed: float,
    cache: int,
    addresses: list[str],
    model: str,
) -> None:
    layers, first, last = span
    changes = {
        "model_layers": layers,
        "first_layer": first,
        "last_layer": last,
        "state": state,
        "model": model,
    }
    changes |= {"tokens_per_second": speed, "free_cache_tokens": cache, "addresses": addresses}
    record = PeerRecord.model_validate(GOOD | changes)
    both: list[Record] = [record, record.model_record()]
    for one in both:
        assert decode(encode(one)) == one


def test_direct_addresses_and_places_fit_a_record_together() -> None:
    addresses = ("203.0.113.255:65535", "192.168.100.100:65535", PLACE, PLACE)
    record = PeerRecord.model_validate(
        GOOD | {"addresses": addresses, "model": "m" * 96, "tokens_per_second": 1e8 / 3}
    )
    assert decode(encode(record)) == record


@given(st.binary(max_size=2 * MAX_RECORD_BYTES))
def test_hostile_bytes_are_invalid_and_nothing_else(data: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode(data)


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), hostile)
def test_a_hostile_field_is_invalid_or_harmless(field: str, value: object) -> None:
    good = PeerRecord.model_validate(GOOD).model_dump()
    with contextlib.suppress(InvalidRecord):
        assert encode(decode(msgpack.packb(good | {field: value})))


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\xc1",
        b"\x91" * 1000,
        b"\xd6\xff" + b"\xff" * 4,
        b"\x81\x90\x00",
        b"\xdf\xff\xff\xff\xff",
        b"",
    ],
)
def test_odd_msgpack_is_invalid(bytes_: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode(bytes_)


@pytest.mark.parametrize(
    "change",
    [
        {"peer_id": PEER_ID[:-1]},
        {"network": "Test"},
        {"model": "with\x1b[31mescape"},
        {"model": "newline\n"},
        {"fingerprint": "0" * 31 + "G"},
        {"first_layer": 4},
        {"first_layer": -1},
        {"last_layer": 9},
        {"model_layers": 1001},
        {"model_layers": 8.0},
        {"model_layers": True},
        {"dtype": "int4"},
        {"addresses": ()},
        {"addresses": ("127.0.0.1:1",) * 9},
        {"addresses": ("127.0.0.1",)},
        {"addresses": ("127.0.0.1:65536",)},
        {"addresses": ("evil host:1",)},
        {"addresses": ("127.0.0.1:1\n",)},
        {"addresses": (PLACE.rpartition("/")[0],)},
        {"addresses": (PLACE.replace("/tcp/", "/udp/"),)},
        {"addresses": (PLACE[:-1] + "0",)},
        {"addresses": (b"127.0.0.1:1",)},
        {"certificate": "a" * 63},
        {"tokens_per_second": math.inf},
        {"tokens_per_second": math.nan},
        {"tokens_per_second": -1.0},
        {"free_cache_tokens": -1},
        {"state": "up"},
        {"protocol": 0},
        {"extra": 1},
    ],
)
def test_what_the_schema_forbids(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PeerRecord.model_validate(GOOD | change)


def test_a_record_is_bounded() -> None:
    long = PeerRecord.model_validate(GOOD | {"addresses": ("a" * 120 + ":65535",) * 8})
    with pytest.raises(InvalidRecord, match="fewer or shorter addresses"):
        encode(long)
    with pytest.raises(InvalidRecord, match="at most"):
        decode(msgpack.packb(long.model_dump()))


def test_a_record_knows_its_keys() -> None:
    record = PeerRecord.model_validate(GOOD)
    way = way_of(PEER_ID)
    assert record.key() == f"swarm/test/{'0' * 32}/1/"
    assert record.key(3) == f"swarm/test/{'0' * 32}/1/{way[:3]}"
    assert keys(record) == tuple(record.key(depth) for depth in range(MAX_DEPTH + 1))
    entry = record.model_record()
    assert entry.key() == "swarm/test/models/"
    assert entry.key(2) == f"swarm/test/models/{way_of('0' * 32)[:2]}"
    deep = GOOD | {"model_layers": 1000, "first_layer": 900, "last_layer": 901}
    assert (record.block, PeerRecord.model_validate(deep).block) == (1, 3)


def test_a_usual_record_leaves_room_for_what_peers_will_say_later() -> None:
    record = PeerRecord.model_validate(GOOD | {"model": "organisation/some-model-70B-instruct"})
    assert len(encode(record)) + 300 < MAX_RECORD_BYTES
