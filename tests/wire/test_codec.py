"""Bytes from outside become one valid message or a WireError, and nothing else."""

import math
import struct
import tracemalloc

import msgpack
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarm.wire import codec, messages
from swarm.wire.codec import (
    MAX_MESSAGE_BYTES,
    MAX_REASON,
    PROTOCOL_VERSION,
    WireError,
    decode,
    encode,
)
from swarm.wire.fields import MAX_ADDRESS, MAX_MODEL_LAYERS, MAX_TEXT, printable
from swarm.wire.messages import Fault, FaultCode, Frame, Ping, Result
from swarm.wire.tensors import MAX_FRAME_TOKENS, MAX_HIDDEN_SIZE, WireTensor

SESSION = bytes(range(16))
# of every message: an array of three, and its first entry
HEAD = b"\x93" + bytes([PROTOCOL_VERSION])

sessions = st.binary(min_size=16, max_size=16)
epochs = st.integers(0, (1 << 31) - 1)
serials = st.integers(0, (1 << 31) - 1)
firsts = st.integers(1, (1 << 31) - 1)
stage_ms = st.lists(st.floats(0, 1e7), max_size=messages.MAX_HOPS).map(tuple)
nonces = st.integers(0, (1 << 32) - 1)
peer_ids = st.from_regex(r"[A-Za-z0-9]{10,100}", fullmatch=True)
speakers = st.lists(peer_ids, max_size=messages.MAX_SPEAKERS).map(tuple)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=MAX_TEXT)
hops = st.builds(
    messages.Hop,
    peer_id=peer_ids,
    address=st.text(min_size=3, max_size=MAX_ADDRESS),
    certificate=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@st.composite
def tensors(draw, min_tokens=0):
    dtype = draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    tokens, hidden = draw(st.integers(min_tokens, 3)), draw(st.integers(1, 4))
    size = tokens * hidden * (4 if dtype == "float32" else 2)
    return WireTensor(
        dtype=dtype,
        tokens=tokens,
        hidden=hidden,
        data=draw(st.binary(min_size=size, max_size=size)),
    )


@st.composite
def frames(draw):
    token_ids = st.lists(st.integers(0, messages.MAX_VOCABULARY - 1), min_size=1, max_size=20).map(
        tuple
    )
    carried = draw(st.one_of(token_ids, tensors(min_tokens=1)))
    is_tensor = isinstance(carried, WireTensor)
    count = carried.tokens if is_tensor else len(carried)
    distances = st.lists(firsts, min_size=count, max_size=count).map(tuple)
    replay = draw(st.none() | st.integers(0, messages.MAX_HOPS))
    return Frame(
        session=draw(sessions),
        epoch=draw(epochs),
        root=draw(serials),
        first=draw(firsts),
        tail=draw(st.integers(0, count if replay is None else 0)),
        parents=draw(st.none() | distances),
        replay=replay,
        compute_ms=draw(stage_ms),
        queue_ms=draw(stage_ms),
        **{"hidden" if is_tensor else "tokens": carried},
    )


@st.composite
def results(draw):
    hidden = draw(tensors())
    count = draw(st.integers(max(1, hidden.tokens), MAX_FRAME_TOKENS))
    return Result(
        session=draw(sessions),
        epoch=draw(epochs),
        first=draw(firsts),
        count=count,
        hidden=hidden,
        compute_ms=draw(stage_ms),
        queue_ms=draw(stage_ms),
    )


@st.composite
def openings(draw):
    first = draw(st.integers(0, MAX_MODEL_LAYERS - 1))
    return messages.Open(
        session=draw(sessions),
        fingerprint=draw(st.from_regex(r"[0-9a-f]{32}", fullmatch=True)),
        first=first,
        last=draw(st.integers(first + 1, MAX_MODEL_LAYERS)),
        max_tokens=draw(st.integers(1, messages.MAX_SESSION_TOKENS)),
        next=draw(st.none() | hops),
        previous=draw(st.none() | peer_ids),
        epoch=draw(epochs),
    )


KINDS = {
    "open": openings(),
    "opened": st.builds(messages.Opened, session=sessions, branches=st.booleans()),
    "frame": frames(),
    "result": results(),
    "cancel": st.builds(messages.Cancel, session=sessions, epoch=epochs),
    "reroute": st.builds(
        messages.Reroute,
        session=sessions,
        epoch=epochs,
        root=serials,
        next=hops,
        replay=st.none() | st.integers(0, messages.MAX_HOPS),
    ),
    "heed": st.builds(messages.AcceptFrom, session=sessions, speakers=speakers),
    "heeding": st.builds(messages.Accepting, session=sessions, speakers=speakers),
    "mirror": st.builds(messages.Mirror, session=sessions, to=st.none() | hops),
    "rerouted": st.builds(messages.Rerouted, session=sessions, epoch=epochs),
    "probe": st.builds(messages.Probe, session=sessions),
    "standing": st.builds(
        messages.Progress,
        session=sessions,
        epoch=epochs,
        last=serials,
        passed=serials,
        queued=st.booleans(),
        batches=st.integers(0, 2**63 - 1),
    ),
    "close": st.builds(messages.Close, session=sessions),
    "ping": st.builds(messages.Ping, nonce=nonces),
    "pong": st.builds(messages.Pong, nonce=nonces),
    "behalf": st.builds(messages.Behalf, clients=st.integers(1, messages.MAX_CLIENTS)),
    "fault": st.builds(
        Fault,
        code=st.sampled_from(FaultCode),
        text=texts,
        session=st.none() | sessions,
        peer=st.none() | peer_ids,
        retry_ms=st.none() | st.floats(0, 1e7),
    ),
}
any_message = st.one_of(*KINDS.values())
any_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=10) | st.binary(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)


def envelope(kind, fields, version=PROTOCOL_VERSION):
    return msgpack.packb([version, kind, fields])


def reason(data):
    with pytest.raises(WireError) as caught:
        decode(data)
    return str(caught.value)


def decode_or_refuse(data):
    """What must hold for any bytes: a message, or a short printable reason."""
    try:
        outcome = decode(data)
    except WireError as error:
        outcome = error.reason
    if isinstance(outcome, str):
        assert len(outcome) <= MAX_REASON
        assert outcome == printable(outcome)
    else:
        assert decode(encode(outcome)) == outcome


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_comes_back_as_it_was(kind):
    @settings(max_examples=40, deadline=None)
    @given(KINDS[kind])
    def check(message):
        decoded = decode(encode(message))
        assert decoded == message
        assert type(decoded) is type(message)

    check()


def test_the_list_of_kinds_is_whole():
    ours = [
        kind for kind in messages.Message.__subclasses__() if kind.__module__ == messages.__name__
    ]
    assert set(codec._KINDS.values()) == {kind for kind in ours if kind is not messages.Hop}
    assert set(codec._KINDS) == set(KINDS)


def test_classes_with_better_names_keep_their_kinds_on_the_wire():
    kinds = {kind.__name__: name for name, kind in codec._KINDS.items()}
    renamed = {name: kind for name, kind in kinds.items() if kind != name.lower()}
    assert renamed == {"AcceptFrom": "heed", "Accepting": "heeding", "Progress": "standing"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
def test_arbitrary_bytes_are_refused(data):
    decode_or_refuse(data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([PROTOCOL_VERSION, True, float(PROTOCOL_VERSION), PROTOCOL_VERSION + 1, None]),
    st.sampled_from(list(KINDS)) | any_data,
    any_data,
)
def test_arbitrary_data_in_an_envelope_is_refused(version, kind, fields):
    decode_or_refuse(envelope(kind, fields, version))


@settings(max_examples=300, deadline=None)
@given(any_message, st.data())
def test_a_message_with_bytes_changed_is_a_message_or_refused(message, data):
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(raw)))
        raw[first : first + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decode_or_refuse(bytes(raw))


@settings(max_examples=300, deadline=None)
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


def test_the_largest_frame_fits():
    hidden = torch.zeros(MAX_FRAME_TOKENS, MAX_HIDDEN_SIZE)
    frame = Frame(
        session=SESSION,
        epoch=(1 << 31) - 1,
        root=(1 << 31) - 1,
        first=(1 << 31) - 1,
        tail=MAX_FRAME_TOKENS,
        parents=((1 << 31) - 1,) * MAX_FRAME_TOKENS,
        hidden=WireTensor.pack(hidden),
        compute_ms=(1e7,) * messages.MAX_HOPS,
        queue_ms=(1e7,) * messages.MAX_HOPS,
    )
    for each in (frame, frame.model_copy(update={"tail": 0, "replay": messages.MAX_HOPS})):
        data = encode(each)
        assert len(data) <= MAX_MESSAGE_BYTES
        assert decode(data) == each


def test_a_reason_is_short_and_cannot_steer_a_terminal():
    name = "\x1b[2J" + "x" * 10_000
    assert "\x1b" not in reason(envelope("ping", {"nonce": 1, name: 1}))
    assert len(reason(envelope(name, {}))) < 200


def test_a_windows_frame_is_small():
    tokens = (messages.MAX_VOCABULARY - 1,) * 9
    frame = Frame(session=SESSION, epoch=1_000, root=100_000, first=100_010, tail=9, tokens=tokens)
    assert len(encode(frame)) <= 100 + 5 * len(tokens)
    branching = frame.model_copy(update={"parents": (1, 1, 1, 1, 1, 1, 7, 8, 100)})
    assert len(encode(branching)) <= 100 + 6 * len(tokens) + 10


def test_defaults_are_not_sent():
    assert encode(Ping(nonce=7)) == HEAD + b"\xa4ping\x81\xa5nonce\x07"
    fields = msgpack.unpackb(encode(Frame(session=SESSION, epoch=0, first=1, tail=1, tokens=(1,))))[
        2
    ]
    assert set(fields) == {"session", "epoch", "first", "tail", "tokens"}


def test_a_clients_frame_takes_at_most_32_bytes_a_drafted_token_and_100_more():
    largest = (1 << 31) - 1  # what no generation gets to
    for count in (1, 16, MAX_FRAME_TOKENS):
        frame = Frame(
            session=SESSION,
            epoch=largest,
            root=largest - 1,
            first=largest,
            tail=count,
            tokens=(messages.MAX_VOCABULARY - 1,) * count,
            parents=(largest,) * count,
        )
        assert len(encode(frame)) <= 100 + 32 * count


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
        monkeypatch.setattr(messages.Message, "model_validate", construct)
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


def test_what_a_version_does_not_know_is_neither_said_nor_taken() -> None:
    """On a link of version 4 nothing is said that came later."""
    assert decode(encode(Ping(nonce=1), 4), 4) == Ping(nonce=1)
    busy = messages.Progress(session=bytes(16), epoch=0, last=3, passed=2, queued=True, batches=7)
    idle = busy.model_copy(update={"queued": False, "batches": 0})
    assert [decode(encode(busy, version), version) for version in (4, 5)] == [idle, busy]
    with pytest.raises(AssertionError):
        encode(messages.Behalf(clients=4), 4)
    with pytest.raises(WireError, match="unknown kind 'behalf'"):
        decode(envelope("behalf", {"clients": 4}, 4), 4)
    with pytest.raises(WireError, match="protocol version 5, this side speaks 4"):
        decode(encode(Ping(nonce=1)), 4)
