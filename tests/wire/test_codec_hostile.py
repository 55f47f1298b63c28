"""Bytes from outside become one valid message or a WireError, and nothing else."""

import math
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.wire_messages import (
    HEAD,
    KINDS,
    SESSION,
    any_data,
    any_message,
    decode_or_refuse,
    envelope,
    reason,
)
from swarm.wire import codec, messages
from swarm.wire.codec import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    WireError,
    decode,
    encode,
)
from swarm.wire.messages import Ping


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
def test_arbitrary_bytes_are_refused(data):
    decode_or_refuse(data)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([PROTOCOL_VERSION, True, float(PROTOCOL_VERSION), PROTOCOL_VERSION + 1, None]),
    st.sampled_from(list(KINDS)) | any_data,
    any_data,
)
def test_arbitrary_data_in_an_envelope_is_refused(version, kind, fields):
    decode_or_refuse(envelope(kind, fields, version))


@settings(max_examples=100, deadline=None)
@given(any_message, st.data())
def test_a_message_with_bytes_changed_is_a_message_or_refused(message, data):
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(raw)))
        raw[first : first + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decode_or_refuse(bytes(raw))


@settings(max_examples=100, deadline=None)
@given(any_message, any_data, st.data())
def test_a_message_with_a_field_changed_is_a_message_or_refused(message, value, data):
    version, kind, fields = msgpack.unpackb(encode(message))
    name = data.draw(st.sampled_from(sorted(fields)) | st.text(max_size=5))
    fields[name] = value
    decode_or_refuse(envelope(kind, fields, version))


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, -1, 1 << 63])
def test_another_protocol_version_is_named(version):
    said = f"protocol version {version}, this side speaks {PROTOCOL_VERSION}; update the older side"
    assert reason(envelope("ping", {"nonce": 1}, version)) == f"not a valid message: {said}"


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1], b"1"])
def test_only_an_integer_is_a_version(version):
    assert "no protocol version" in reason(envelope("ping", {"nonce": 1}, version))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (msgpack.packb({"kind": "ping"}), "no [version, kind, fields]"),
        (msgpack.packb([PROTOCOL_VERSION, "ping"]), "no [version, kind, fields]"),
        (msgpack.packb([PROTOCOL_VERSION, "ping", {"nonce": 1}, 0]), "no [version, kind, fields]"),
        (envelope("hop", {}), "unknown kind 'hop'"),
        (envelope("Ping", {"nonce": 1}), "unknown kind 'Ping'"),
        (envelope(7, {}), "unknown kind of type int"),
        (envelope("ping", [1]), "fields are no map of names"),
        (envelope("ping", {b"nonce": 1}), "fields are no map of names"),
        (envelope("ping", {}), "ping.nonce: Field required"),
        (envelope("ping", {"nonce": 1, "more": 1}), "ping.more: Extra inputs are not permitted"),
        (envelope("ping", {"nonce": -1}), "ping.nonce: Input should be greater than or equal to 0"),
        (envelope("ping", {"nonce": True}), "ping.nonce: Input should be a valid integer"),
        (envelope("ping", {"nonce": 1.0}), "ping.nonce: Input should be a valid integer"),
        (
            envelope("close", {"session": bytes(15)}),
            "close.session: Data should have at least 16 bytes",
        ),
        (
            envelope("close", {"session": bytes(17)}),
            "close.session: Data should have at most 16 bytes",
        ),
        (envelope("close", {"session": "x" * 16}), "close.session: Input should be a valid bytes"),
        (envelope("fault", {"code": "?", "text": ""}), "fault.code: Input should be 'bad_message'"),
        (envelope("ping", {"nonce": msgpack.ExtType(5, b"1")}), "broken msgpack (ValueError)"),
        (envelope("ping", {"nonce": 1}) + b"\x00", "broken msgpack (ExtraData)"),
        (envelope("ping", {"nonce": 1})[:-1], "broken msgpack (ValueError)"),
    ],
)
def test_a_refusal_says_where_and_why(data, why):
    assert reason(data).startswith(f"not a valid message: {why}")


def frame_fields(**changed):
    return {"session": SESSION, "epoch": 0, "first": 1, "tail": 1, "tokens": [1, 2], **changed}


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"tokens": [1] * 257}, "broken msgpack"),  # longer than any array may be
        ({"tokens": []}, "frame.tokens"),
        ({"tokens": [1, True]}, "frame.tokens.1"),
        ({"tokens": [1, -1]}, "frame.tokens.1"),
        ({"tokens": [1, 2.0]}, "frame.tokens.1"),
        ({"tokens": {"0": 1}}, "frame.tokens"),
        ({"tokens": "12"}, "frame.tokens"),
        ({"tokens": b"12"}, "frame.tokens"),
        ({"compute_ms": [math.nan]}, "frame.compute_ms.0"),
        ({"compute_ms": [math.inf]}, "frame.compute_ms.0"),
        ({"compute_ms": [-1.0]}, "frame.compute_ms.0"),
        ({"compute_ms": [False]}, "frame.compute_ms.0"),
        ({"compute_ms": [1.0] * 65}, "frame.compute_ms"),
        ({"queue_ms": [1.0] * 65}, "frame.queue_ms"),
        ({"first": 0}, "frame.first"),
        ({"root": 1 << 31}, "frame.root"),
        ({"parents": [1, 0]}, "frame.parents.1"),
        ({"parents": [1, 1 << 31]}, "frame.parents.1"),
        ({"parents": [1, True]}, "frame.parents.1"),
        ({"parents": [1]}, "frame.message"),
        ({"tail": 3}, "frame.message"),
        ({"replay": 0}, "frame.message"),
        ({"replay": -1, "tail": 0}, "frame.replay"),
        ({"replay": True, "tail": 0}, "frame.replay"),
        (
            {"hidden": {"dtype": "float16", "tokens": 2, "hidden": 2, "data": bytes(8)}},
            "frame.message",
        ),
        (
            {
                "tokens": None,
                "hidden": {"dtype": "float16", "tokens": 2, "hidden": 2, "data": bytes(7)},
            },
            "frame.hidden",
        ),
        (
            {"tokens": None, "hidden": {"dtype": "float16", "tokens": 2, "hidden": 2}},
            "frame.hidden.data",
        ),
        ({"tokens": None, "hidden": [1, 2]}, "frame.hidden"),
    ],
)
def test_a_frame_out_of_bounds_is_refused(changed, where):
    decode(envelope("frame", frame_fields()))
    assert reason(envelope("frame", frame_fields(**changed))).startswith(
        f"not a valid message: {where}"
    )


@pytest.mark.parametrize("depth", [10, 500, 1023, 5_000, 1_000_000])
@pytest.mark.parametrize("place", ["version", "kind", "fields", "field"])
def test_depth_bombs_are_refused(depth, place):
    bomb = b"\x91" * depth + b"\x01"
    data = {
        "version": b"\x93" + bomb + b"\xa4ping\x80",
        "kind": HEAD + bomb + b"\x80",
        "fields": HEAD + b"\xa4ping" + bomb,
        "field": HEAD + b"\xa4ping\x81\xa5nonce" + bomb,
    }[place]
    assert reason(data).startswith("not a valid message: broken msgpack")


def test_a_flood_of_small_containers_is_stopped_before_it_fills_the_memory():
    flood = msgpack.packb([[{}] * 200] * 200)
    assert reason(HEAD + b"\xa4ping" + flood) == "not a valid message: broken msgpack (ValueError)"


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd" + struct.pack(">I", 0xFFFFFFFF),  # array
        b"\xdf" + struct.pack(">I", 0xFFFFFFFF),  # map
        b"\xc6" + struct.pack(">I", 0xFFFFFFFF),  # bytes
        b"\xdb" + struct.pack(">I", 0xFFFFFFFF),  # text
        b"\xc9" + struct.pack(">I", 0xFFFFFFFF) + b"\x05",  # extension
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that no clock shows
    ],
)
def test_declared_lengths_are_not_believed(header):
    for data in (header, HEAD + b"\xa4ping" + header, HEAD + b"\xa4ping\x81\xa5nonce" + header):
        assert reason(data).startswith("not a valid message: broken msgpack")


def test_a_message_longer_than_any_is_not_looked_at():
    assert reason(bytes(MAX_MESSAGE_BYTES + 1)).endswith(
        f"bytes, at most {MAX_MESSAGE_BYTES} are allowed"
    )


def test_a_reason_is_short_and_cannot_steer_a_terminal():
    name = "\x1b[2J" + "x" * 10_000
    assert "\x1b" not in reason(envelope("ping", {"nonce": 1, name: 1}))
    assert len(reason(envelope(name, {}))) < 200


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_a_message_of_many_containers_is_not_unpacked(defended, monkeypatch):
    built = []

    class Counted(codec._Containers):
        def __call__(self, container):
            built.append(1)
            return super().__call__(container)

    monkeypatch.setattr(codec, "_Containers", Counted)
    if not defended:
        monkeypatch.setattr(codec, "MAX_CONTAINERS", 1 << 30)
    bomb = msgpack.packb([PROTOCOL_VERSION, "ping", {"nonce": 1, "more": [[[]] * 200] * 200}])
    with pytest.raises(WireError):
        decode(bomb)
    assert len(built) == (codec.MAX_CONTAINERS + 1 if defended else 40_203)


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_a_field_that_is_out_of_bounds_is_not_believed(defended, monkeypatch):
    if not defended:
        monkeypatch.setattr(Ping, "model_validate", lambda fields: Ping.model_construct(**fields))
    data = msgpack.packb([PROTOCOL_VERSION, "ping", {"nonce": 1 << 40}])
    if defended:
        with pytest.raises(WireError):
            decode(data)
    else:
        assert decode(data).nonce == 1 << 40


def taken(data: bytes) -> bool:
    """Whether bytes pass for a message."""
    try:
        decode(data)
    except WireError:
        return False
    return True


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("kind", ["close", "ping", "frame", "open"])
def test_fields_of_other_types_pass_only_where_nothing_checks_them(
    kind: str, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        construct = classmethod(lambda cls, fields: cls.model_construct(**fields))
        monkeypatch.setattr(messages.WireMessage, "model_validate", construct)
    assert (
        taken(msgpack.packb([PROTOCOL_VERSION, kind, {"session": 7, "nonce": "x"}])) is not defended
    )


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_bytes_that_would_become_a_thousand_times_as_many_are_stopped_on_the_way(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(codec, "MAX_CONTAINERS", 1 << 30)
    data = msgpack.packb(
        [PROTOCOL_VERSION, "ping", {str(i): [[[[]] * 256] * 4] for i in range(256)}]
    )
    tracemalloc.start()
    assert not taken(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak < 2 * len(data)) is defended


@pytest.mark.threat("oversized-message")
@pytest.mark.parametrize("defended", [True, False])
def test_a_message_beyond_the_limit_is_unpacked_only_without_one(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    unpack = msgpack.unpackb
    monkeypatch.setattr(
        msgpack,
        "unpackb",
        lambda data, **options: unpacked.append(len(data)) or unpack(data, **options),
    )
    if not defended:
        monkeypatch.setattr(codec, "MAX_MESSAGE_BYTES", 1 << 40)
    assert not taken(bytes(MAX_MESSAGE_BYTES + 1))
    assert bool(unpacked) is not defended


def test_what_stands_in_the_place_of_the_kind_is_not_spelled_out() -> None:
    data = msgpack.packb([PROTOCOL_VERSION, bytes(10_000_000), {}])
    tracemalloc.start()
    assert not taken(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(data)
