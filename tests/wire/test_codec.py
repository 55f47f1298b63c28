"""A message becomes bytes and the same message again, in few bytes, of a version both speak."""

import msgpack
import pytest
import torch
from hypothesis import given, settings

from helpers.wire_messages import (
    HEAD,
    KINDS,
    SESSION,
    envelope,
)
from swarm.wire import codec, messages
from swarm.wire.candidates import HeadTerms
from swarm.wire.codec import (
    MAX_MESSAGE_BYTES,
    WireError,
    decode,
    encode,
)
from swarm.wire.forks import Fork
from swarm.wire.messages import Frame, Ping
from swarm.wire.taps import TapTerms
from swarm.wire.tensors import MAX_FRAME_TOKENS, MAX_HIDDEN_SIZE, WireTensor


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
    bases = {messages.WireMessage, messages.SessionMessage}
    ours = {
        kind
        for base in bases
        for kind in base.__subclasses__()
        if kind.__module__ == messages.__name__
    }
    assert set(codec._KINDS.values()) == ours - bases - {messages.Hop}
    assert set(codec._KINDS) == set(KINDS)


def test_classes_with_better_names_keep_their_kinds_on_the_wire():
    kinds = {kind.__name__: name for name, kind in codec._KINDS.items()}
    renamed = {name: kind for name, kind in kinds.items() if kind != name.lower()}
    assert renamed == {"AcceptFrom": "heed", "Accepting": "heeding", "Progress": "standing"}


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


def opening(**fields: object) -> messages.Open:
    return messages.Open(
        **{"session": bytes(16), "fingerprint": "0" * 32, "first": 0, "last": 1, "max_tokens": 1}
        | fields
    )


def test_what_a_version_does_not_know_is_neither_said_nor_taken() -> None:
    """On a link of version 4 nothing is said that came later."""
    assert decode(encode(Ping(nonce=1), 4), 4) == Ping(nonce=1)
    busy = messages.Progress(session=bytes(16), epoch=0, last=3, passed=2, queued=True, batches=7)
    idle = busy.model_copy(update={"queued": False, "batches": 0})
    assert [decode(encode(busy, version), version) for version in (4, 5)] == [idle, busy]
    plain = opening(head=None)
    headed = opening(head=HeadTerms(count=64))
    assert [decode(encode(headed, version), version) for version in (5, 6)] == [plain, headed]
    both = opening(head=HeadTerms(count=64), taps=TapTerms(layers=(0,)))
    expected = [plain, headed, both]
    assert [decode(encode(both, version), version) for version in (5, 6, 7)] == expected
    fresh = opening(max_tokens=9)
    forked = opening(max_tokens=9, fork=Fork(session=bytes(16), root=7, count=5))
    assert [decode(encode(forked, version), version) for version in (7, 8)] == [fresh, forked]
    held = messages.Opened(session=bytes(16), forks=True, held=5)
    told = [decode(encode(held, version), version) for version in (7, 8)]
    assert told == [messages.Opened(session=bytes(16)), held]
    with pytest.raises(WireError, match="unknown kind 'tapped'"):
        decode(envelope("tapped", {}, 6), 6)
    with pytest.raises(AssertionError):
        encode(messages.Refine(session=bytes(16), serial=1, count=0), 5)
    with pytest.raises(AssertionError):
        encode(messages.Behalf(clients=4), 4)
    with pytest.raises(WireError, match="unknown kind 'behalf'"):
        decode(envelope("behalf", {"clients": 4}, 4), 4)
    with pytest.raises(WireError, match="protocol version 8, this side speaks 4"):
        decode(encode(Ping(nonce=1)), 4)
