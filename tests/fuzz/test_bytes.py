"""Hostile bytes: some thousands for every decoder, and the whole corpus."""

from pathlib import Path

import pytest

from fuzz.loop import fuzz, replay, smallest
from fuzz.targets import TARGETS, Codec
from swarm.wire import codec
from swarm.wire.messages import WireMessage

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_said_is_either_taken_as_it_is_meant_or_refused(name: str) -> None:
    report = fuzz(TARGETS[name](), 1500, seed=7)
    assert report.failures == []
    assert report.valid > 50
    assert report.inputs - report.valid > 50


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_corpus_keeps_does_no_harm(name: str) -> None:
    assert len(list(CORPUS.glob(f"{name}-*"))) > 5
    assert replay(TARGETS[name](), CORPUS) == []


def test_the_same_seed_gives_the_same_inputs() -> None:
    one, other = (fuzz(Codec(), 500, seed=3) for _ in range(2))
    assert (one.outcomes, one.ways) == (other.outcomes, other.ways)


def test_every_kind_of_message_is_tried() -> None:
    outcomes = fuzz(Codec(), 1500, seed=1).outcomes
    assert {f"valid {kind.__name__}" for kind in codec._KINDS.values()} <= set(outcomes)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
def test_fuzzing_notices_a_decoder_that_checks_no_fields(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(
            WireMessage,
            "model_validate",
            classmethod(lambda cls, fields: cls.model_construct(**fields)),
        )
    assert bool(fuzz(Codec(), 1500, seed=1, failures=1).failures) is not defended


def test_what_fails_is_made_small() -> None:
    assert smallest(b"a" * 100 + b"xy" + b"b" * 77, lambda data: b"xy" in data) == b"xy"
