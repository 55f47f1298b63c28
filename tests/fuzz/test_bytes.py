"""Hostile bytes: a few thousand for every decoder, and all that ever failed."""

from pathlib import Path

import msgpack
import pytest
from fuzz.loop import fuzz, replay
from fuzz.targets import TARGETS, Codec, Framing

from swarm.network import stream
from swarm.wire import codec
from swarm.wire.codec import WireError
from swarm.wire.messages import Message

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_said_is_either_taken_as_it_is_meant_or_refused(name: str) -> None:
    report = fuzz(TARGETS[name](), 3000, seed=7)
    assert report.failures == []
    assert report.valid > 100
    assert report.inputs - report.valid > 100


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_failed_does_so_no_more(name: str) -> None:
    assert replay(TARGETS[name](), CORPUS) == []


def test_the_same_seed_gives_the_same_inputs() -> None:
    one, other = (fuzz(Codec(), 500, seed=3) for _ in range(2))
    assert (one.outcomes, one.ways) == (other.outcomes, other.ways)


def test_every_kind_of_message_is_tried() -> None:
    outcomes = fuzz(Codec(), 1500, seed=1).outcomes
    assert {f"valid {kind.__name__}" for kind in codec._KINDS.values()} <= set(outcomes)


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_malformed_bytes_are_nothing_but_a_wire_error(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of every field, wrong ones go through, or other errors come out."""
    if not defended:
        kinds = {kind.__name__: kind for kind in codec._KINDS.values()}
        for kind in kinds.values():
            monkeypatch.setattr(kind, "model_validate", kind.model_construct_from)  if False else None
        monkeypatch.setattr(Message, "model_validate", classmethod(lambda cls, fields: cls.model_construct(**fields)))
    failures = fuzz(Codec(), 1000, seed=1).failures
    assert bool(failures) is not defended


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_a_small_message_cannot_become_a_large_one(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers cost far more memory than bytes: without a bound, one message could fill it."""
    if not defended:
        monkeypatch.setattr(codec, "MAX_CONTAINERS", 1 << 30)
        monkeypatch.setattr(codec, "MAX_ENTRIES", 1 << 20)
    data = msgpack.packb([codec.PROTOCOL_VERSION, "ping", [[]] * (1 << 17)])
    assert Held(data).small is defended
