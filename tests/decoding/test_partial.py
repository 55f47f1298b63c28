"""What is decided from a part of a prediction is what the whole one decides."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.masks import EveryThird
from swarm.decoding.candidates import (
    CandidateRow,
    choose_candidates,
    head_terms,
    objection,
    read_candidates,
    whole_row,
)
from swarm.decoding.certificate import Bounds, Choosing, certify
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.choose import Verification
from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.sampling import Sampling, log_probabilities
from swarm.decoding.shaping import NO_SHAPING, Shaping

VOCABULARY = 400
HISTORY = (5, 6, 7, 399, 12)
LEXICON = Lexicon(lambda ids: "x" * len(ids))

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.5]),
    top_k=st.sampled_from([0, 0, 1, 5, 20, 300]),
    top_p=st.sampled_from([1.0, 1.0, 0.0, 0.3, 0.9, 0.99]),
    seed=st.integers(0, 1000),
    min_p=st.sampled_from([0.0, 0.0, 1e-3, 0.1, 1.0]),
)
shapings = st.builds(
    Shaping,
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.7]),
    logit_bias=st.sampled_from([(), ((3, 4.0), (9, -100.0)), ((7, -2.0),)]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7, -1.0]),
    masks=st.sampled_from([(), (), (EveryThird(VOCABULARY),)]),
    prompt_tokens=st.integers(0, len(HISTORY)),
)


def row_of(seed: int, spread: float) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def told(
    row: torch.Tensor, sampling: Sampling, shaping: Shaping = NO_SHAPING, count: int = 32
) -> CandidateRow:
    terms = head_terms(sampling, shaping.logit_bias, count)
    answer = choose_candidates(row[None], [len(HISTORY)], terms)
    (known,) = read_candidates(answer, terms, VOCABULARY)
    assert objection(known, terms) is None
    return known


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 3.0, 8.0]), samplings, shapings)
def test_a_certain_choice_is_that_of_the_whole_row(
    seed: int, spread: float, sampling: Sampling, shaping: Shaping
) -> None:
    row = row_of(seed, spread)
    partial = PartialRow(told(row, sampling, shaping), HISTORY, shaping, sampling)
    exact = shaping.apply(row[None], HISTORY)
    if partial.choice_is_certain:
        assert [partial.choice] == sampling.choose(exact, len(HISTORY))
    if partial.distribution_is_certain:
        log_p = sampling.log_probabilities(exact[0])
        listed = torch.isfinite(log_p[partial.listed])
        by_part = torch.isfinite(sampling.log_probabilities(partial.logits)[partial.listed])
        assert torch.equal(listed, by_part), "what top k and top p leave in"


@settings(max_examples=100)
@given(st.integers(0, 10_000), samplings, shapings)
@example(0, Sampling(temperature=0.3, min_p=1.0), NO_SHAPING)
def test_it_is_certain_wherever_bounds_of_every_logit_are(
    seed: int, sampling: Sampling, shaping: Shaping
) -> None:
    """`certify` is the simple version: it knows no sums, and looks at the whole vocabulary."""
    known = told(row_of(seed, 2.0), sampling, shaping)
    partial = PartialRow(known, HISTORY, shaping, sampling)
    lower = torch.full((VOCABULARY,), -torch.inf)
    upper = torch.full((VOCABULARY,), float(known.logits[known.plain - 1]))
    for bound in (lower, upper):
        bound[known.tokens] = known.logits
    bounds = Bounds(lower[None], upper[None])
    choosing = Choosing(sampling, shaping, HISTORY, ((),))
    (choice,) = certify(bounds, choosing, lambda *_: lower[:0], most=0).choices
    if choice is not None:
        rewards = min(shaping.presence_penalty, shaping.frequency_penalty) < 0
        assert partial.choice_is_certain or shaping.repetition_penalty < 1.0 or rewards
        assert partial.choice == choice or not partial.choice_is_certain


@settings(max_examples=200)
@given(st.integers(0, 10_000), samplings, shapings)
def test_rules_that_settle_decide_as_from_the_whole_row(
    seed: int, sampling: Sampling, shaping: Shaping
) -> None:
    row = row_of(seed, 2.0)
    exact = shaping.apply(row[None], HISTORY)
    draft = row_of(seed, 2.0) + 0.5 * row_of(seed + 1, 1.0)
    guess = Drafted(sampling.choose(draft[None], len(HISTORY) + 1)[0], 0.5, draft)
    partial = PartialRow(told(row, sampling, shaping), HISTORY, shaping, sampling)
    for name in ("strict", "adaptive", "random", "rejection", "near_tie"):
        verification = Verification(name)
        rule = verification.rule(sampling, LEXICON)
        for drafted in ([], [guess]):
            if not rule.settles(partial, HISTORY, drafted[0] if drafted else None):
                continue
            by_part = rule.judge(partial.logits[None], HISTORY, drafted)
            by_whole = verification.rule(sampling, LEXICON).judge(exact, HISTORY, drafted)
            assert [each.token for each in by_part] == [each.token for each in by_whole]
            assert [each.key for each in by_part] == [each.key for each in by_whole]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_most_rows_are_decided_by_64_candidates(temperature: float) -> None:
    sampling = Sampling(temperature, seed=3)
    decided = adaptive = 0
    for seed in range(50):
        row = row_of(seed, 3.0)
        partial = PartialRow(told(row, sampling, count=64), HISTORY, NO_SHAPING, sampling)
        decided += partial.choice_is_certain
        rule = Verification("adaptive").rule(sampling, LEXICON)
        second = int(row.topk(2).indices[1])
        adaptive += rule.settles(partial, HISTORY, Drafted(second, 0.5, row))
    assert decided == 50
    assert adaptive >= 45


def test_a_whole_row_decides_everything() -> None:
    sampling = Sampling(0.9, top_p=0.9999, seed=1)
    terms = head_terms(sampling, (), 64)
    row = row_of(4, 0.5)
    (known,) = read_candidates(whole_row(row, terms), terms, VOCABULARY)
    assert objection(known, terms) is None
    partial = PartialRow(known, HISTORY, NO_SHAPING, sampling)
    assert torch.equal(partial.logits, row)
    assert partial.is_whole
    assert partial.choice_is_certain


def test_log_probabilities_are_those_of_the_whole_row() -> None:
    sampling = Sampling(0.7, seed=2)
    row = row_of(8, 2.0)
    partial = PartialRow(told(row, sampling), HISTORY, NO_SHAPING, sampling)
    logprob, likeliest = log_probabilities(partial.at_temperature_one(), partial.choice, 5)
    expected, others = log_probabilities(row, partial.choice, 5)
    assert logprob == pytest.approx(expected, abs=1e-4)
    assert [token for token, _ in likeliest] == [token for token, _ in others]
