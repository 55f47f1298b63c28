"""What a last peer tells of its predictions: which tokens, in how many bytes, what is refused."""

import dataclasses

import pytest
import torch

from swarm.decoding.candidates import (
    CandidateRow,
    choose_candidates,
    contradiction,
    head_terms,
    objection,
    read_candidates,
    whole_row,
)
from swarm.decoding.sampling import Sampling
from swarm.wire.candidates import MAX_WANTED, HeadTerms
from swarm.wire.codec import encode
from swarm.wire.messages import Result
from swarm.wire.tensors import WireTensor

VOCABULARY = 1000
POSITION = 17
ROW = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


def told(terms: HeadTerms, row: torch.Tensor = ROW) -> CandidateRow:
    (known,) = read_candidates(choose_candidates(row[None], [POSITION], terms), terms, VOCABULARY)
    return known


def test_the_best_tokens_are_told_with_their_exact_logits() -> None:
    known = told(HeadTerms(count=64))
    assert known.tokens.tolist() == ROW.topk(64).indices.tolist()
    assert torch.equal(known.logits, ROW[known.tokens])
    assert known.log_sum == pytest.approx(float(ROW.double().logsumexp(-1)))
    assert known.scaled_log_sum == known.log_sum


def test_with_a_temperature_the_best_with_noise_are_told_too() -> None:
    sampling = Sampling(2.0, seed=3)
    known = told(head_terms(sampling, (), 64))
    listed = set(known.tokens.tolist())
    assert set(ROW.topk(48).indices.tolist()) <= listed
    assert set(sampling.scores(ROW, POSITION).topk(16).indices.tolist()) <= listed
    assert 48 < len(listed) <= 64
    assert known.scaled_log_sum == pytest.approx(float((ROW.double() / 2.0).logsumexp(-1)))


def test_biased_tokens_are_wanted_those_that_grow_most_first() -> None:
    biases = [(token, float(token % 7 - 3)) for token in range(400)]
    terms = head_terms(Sampling(), biases, 64)
    wanted = set(torch.frombuffer(bytearray(terms.wanted), dtype=torch.int32).tolist())
    assert len(wanted) == MAX_WANTED
    assert wanted >= {token for token, bias in biases if bias > 0}
    assert wanted <= set(told(terms).tokens.tolist())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_position_takes_a_tenth_of_its_hidden_state(temperature: float) -> None:
    """At 4,096 wide, a frame of four positions and four stages."""
    fields = {
        "session": bytes(16),
        "epoch": 3,
        "first": 1000,
        "count": 4,
        "compute_ms": (1.5, 2.5, 3.5, 4.5),
        "queue_ms": (0.5,) * 4,
    }
    rows = torch.randn(4, 128_256, generator=torch.Generator().manual_seed(1)) * 2
    terms = head_terms(Sampling(temperature, seed=1), (), 64)
    candidates = choose_candidates(rows, range(900, 904), terms)
    hidden = WireTensor.pack(torch.zeros(4, 4096, dtype=torch.bfloat16))
    before = len(encode(Result(**fields, hidden=hidden)))
    now = len(encode(Result(**fields, candidates=candidates)))
    assert now * 10 < before


REFUSED = {
    "not finite": {"logits": torch.full((64,), float("nan"))},
    "sums": {"log_sum": 0.0},
    "sums with the temperature": {"scaled_log_sum": 1e6},
    "sums not finite": {"log_sum": float("inf")},
    "not in order": {"logits": torch.arange(64.0)},
    "twice": {"tokens": torch.zeros(64, dtype=torch.int64)},
    "beyond the vocabulary": {"tokens": torch.arange(VOCABULARY - 10, VOCABULARY + 54)},
    "too few": {"tokens": torch.arange(9), "logits": torch.zeros(9)},
    "too many": {"tokens": torch.arange(65), "logits": torch.zeros(65)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_head_can_tell_is_refused(name: str) -> None:
    terms = HeadTerms(count=64)
    known = told(terms)
    assert objection(known, terms) is None
    assert objection(dataclasses.replace(known, **REFUSED[name]), terms)


def test_wanted_tokens_must_be_told() -> None:
    terms = HeadTerms(count=64)
    rarest = int(ROW.argmin())
    wanting = terms.model_copy(update={"wanted": rarest.to_bytes(4, "little")})
    assert objection(told(wanting), wanting) is None
    assert objection(told(terms), wanting) == "it leaves out tokens that were asked for"


def test_what_is_told_later_must_not_contradict_what_was_told_before() -> None:
    terms = HeadTerms(count=64)
    fuller = terms.model_copy(update={"count": 256})
    known = told(terms)
    (whole,) = read_candidates(whole_row(ROW, terms), terms, VOCABULARY)
    for more in (told(fuller), whole):
        assert contradiction(known, more) is None
    risen = ROW.clone()
    risen[ROW.argmin()] = float(ROW.max()) + 1
    assert contradiction(known, told(fuller, risen))
    assert contradiction(known, told(fuller, ROW + 0.1))
    assert contradiction(known, told(fuller, -ROW))
