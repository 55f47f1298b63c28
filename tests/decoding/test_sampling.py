"""A choice depends on logits, seed and position alone, and is a fair draw from the softmax."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from swarm.decoding.sampling import (
    MAX_SEED,
    TOP_BLOCK,
    Sampling,
    gumbel_noise,
    restrict,
    top_tokens,
)
from swarm.errors import SamplingError

SEEDS = st.integers(0, MAX_SEED)
POSITIONS = st.integers(0, 1 << 20)


def logits_of(seed, rows=1, vocabulary=50):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


@given(SEEDS, POSITIONS)
def test_noise_is_a_function_of_seed_and_position(seed, position):
    assert torch.equal(gumbel_noise(seed, position, 40), gumbel_noise(seed, position, 40))


@given(SEEDS, POSITIONS)
def test_noise_differs_between_seeds_and_positions(seed, position):
    noise = gumbel_noise(seed, position, 8)
    assert not torch.equal(noise, gumbel_noise(seed, position + 1, 8))
    assert not torch.equal(noise, gumbel_noise(seed ^ 1, position, 8))


@given(SEEDS, POSITIONS, st.integers(1, 500), st.integers(1, 500))
def test_noise_of_a_token_does_not_depend_on_the_size_of_the_vocabulary(seed, position, some, more):
    assert torch.equal(
        gumbel_noise(seed, position, some), gumbel_noise(seed, position, some + more)[:some]
    )


def test_noise_comes_from_the_documented_bits_of_philox():
    words = np.random.Philox(key=[7, 123]).random_raw(50).view(np.uint32)
    uniform = np.maximum((words >> 8).astype(np.float64) / 2**24, 2.0**-25)
    torch.testing.assert_close(
        gumbel_noise(7, 123, 100), torch.from_numpy(-np.log(-np.log(uniform))).float()
    )


def test_a_uniform_of_exactly_zero_still_gives_finite_noise():
    noise = gumbel_noise(0, 34, 159_715)  # its last uniform is 0
    assert noise[-1] == noise.min()
    assert noise[-1].item() == pytest.approx(-math.log(25 * math.log(2)), rel=1e-6)


@given(SEEDS, POSITIONS, st.floats(0.1, 40), st.integers(2, 300))
def test_the_draw_is_the_one_with_all_noise_worked_out(seed, position, spread, vocabulary):
    scores = spread * logits_of(seed, 1, vocabulary)[0]
    scores[::7] = -math.inf
    scores[1] = 0.0
    assert Sampling(1.0, seed=seed).draw(scores, position) == int(
        (scores + gumbel_noise(seed, position, vocabulary)).argmax()
    )


@given(SEEDS, POSITIONS, st.sampled_from([1e-3, 0.3, 1.0, 20.0]), st.integers(2, 300))
def test_the_choice_is_the_one_with_every_token_scaled(seed, position, temperature, vocabulary):
    logits = 9 * logits_of(seed, 2, vocabulary)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    expected = [
        int((row + gumbel_noise(seed, position + i, vocabulary)).argmax())
        for i, row in enumerate(scaled)
    ]
    assert Sampling(temperature, seed=seed).choose(logits, position) == expected


def test_noise_is_finite_and_has_the_moments_of_a_gumbel_distribution():
    noise = torch.cat([gumbel_noise(3, position, 10_000) for position in range(100)]).double()
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.005)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.01)


def chi_square(choices, probabilities):
    counts = torch.bincount(torch.tensor(choices), minlength=len(probabilities)).double()
    expected = probabilities.double() * len(choices)
    assert counts[expected == 0].sum() == 0
    drawn = expected > 0
    return ((counts - expected)[drawn] ** 2 / expected[drawn]).sum().item()


CHI_SQUARE_7 = 24.3  # exceeded once in a thousand by seven degrees of freedom
LOGITS = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_along_a_text_tokens_are_drawn_from_the_softmax(temperature):
    choices = Sampling(temperature, seed=11).choose(LOGITS.expand(10_000, -1), position=5)
    assert chi_square(choices, (LOGITS[0] / temperature).softmax(-1)) < CHI_SQUARE_7


def test_over_all_seeds_a_token_is_drawn_from_the_softmax():
    choices = [Sampling(1.0, seed=seed).choose(LOGITS, position=9)[0] for seed in range(5_000)]
    assert chi_square(choices, LOGITS[0].softmax(-1)) < CHI_SQUARE_7


def test_restricted_tokens_are_drawn_from_what_is_left_of_the_softmax():
    choices = Sampling(1.0, top_k=5, top_p=0.9, seed=4).choose(
        LOGITS.expand(10_000, -1), position=0
    )
    left = restrict(LOGITS, 5, 0.9)[0].softmax(-1)
    assert (left > 0).sum() == 4
    assert chi_square(choices, left) < 16.3  # once in a thousand, three degrees of freedom


def reference_restriction(logits, top_k, top_p):
    """Return the ids that stay, by the definition, and the nucleus' distance from a tie."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])[: top_k or None]
    total = math.fsum(math.exp(logits[token]) for token in order)
    kept, mass, margin = set(), 0.0, 1.0
    for token in order:
        margin = min(margin, abs(mass - top_p))
        if mass >= top_p:
            break
        kept.add(token)
        mass += math.exp(logits[token]) / total
    return kept, margin


@settings(deadline=None)
@given(
    st.lists(st.integers(-60, 60), min_size=1, max_size=30, unique=True),
    st.integers(0, 35),
    st.floats(0.01, 1.0),
)
def test_restriction_keeps_what_the_definition_keeps(tenths, top_k, top_p):
    logits = [tenth / 10 for tenth in tenths]
    kept, margin = reference_restriction(logits, top_k, top_p)
    assume(margin > 1e-5 or top_p == 1.0)
    restricted = restrict(torch.tensor([logits]), top_k, top_p)[0]
    assert {token for token, value in enumerate(restricted.tolist()) if value > -math.inf} == kept
    assert all(restricted[token] == torch.tensor(logits[token]) for token in kept)


def test_restriction_without_limits_changes_nothing():
    logits = logits_of(1, rows=3)
    assert torch.equal(restrict(logits, 0, 1.0), logits)
    assert torch.equal(restrict(logits, 50, 1.0), logits)


def test_ties_stay_in_the_top_k_and_low_ids_first_in_the_top_p():
    tied = torch.zeros(1, 4)
    assert restrict(tied, 2, 1.0).isfinite().sum() == 4
    assert restrict(tied, 0, 0.5).isfinite().tolist() == [[True, True, False, False]]


def test_the_likeliest_token_always_stays():
    assert restrict(torch.tensor([[0.0, 9.0, 0.0]]), 0, 1e-9).isfinite().tolist() == [
        [False, True, False]
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_takes_the_best_whatever_the_seed(dtype):
    logits = logits_of(2, rows=6).to(dtype)
    assert Sampling(seed=1).choose(logits, 0) == logits.argmax(-1).tolist()
    assert Sampling(seed=2, top_k=3, top_p=0.1).choose(logits, 77) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 5e-324])
@pytest.mark.parametrize("limits", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_towards_zero_temperature_becomes_greedy(temperature, limits):
    logits = torch.tensor([[3.0, 9.0, 9.5, -1.0], [-5.0, -4.0, -9.0, -4.5]])
    assert Sampling(temperature, **limits).choose(logits, 0) == [2, 1]


def test_top_k_of_one_is_greedy_at_any_temperature():
    logits = logits_of(3, rows=20)
    assert Sampling(5.0, top_k=1).choose(logits, 0) == logits.argmax(-1).tolist()


@given(
    SEEDS,
    st.integers(0, 99),
    st.sampled_from([{}, {"top_k": 7}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.7}]),
)
@settings(deadline=None)
def test_rows_are_chosen_alike_together_and_alone(seed, position, limits):
    sampling, logits = Sampling(1.0, seed=seed, **limits), logits_of(seed % 1000, rows=5)
    alone = [sampling.choose(row[None], position + i)[0] for i, row in enumerate(logits)]
    assert sampling.choose(logits, position) == alone
    assert sampling.choose(logits[2:], position + 2) == alone[2:]


def test_no_rows_give_no_tokens():
    assert Sampling().choose(torch.empty(0, 8), 3) == []
    assert Sampling(1.0, top_k=3, top_p=0.5).choose(torch.empty(0, 8), 3) == []


def test_padding_that_cannot_win_does_not_change_the_choice():
    logits = logits_of(5, rows=50)
    padded = torch.cat([logits, torch.full((50, 14), -torch.inf)], dim=-1)
    assert Sampling(1.0, seed=8).choose(padded, 3) == Sampling(1.0, seed=8).choose(logits, 3)


def test_a_similar_model_with_the_same_noise_mostly_agrees():
    target = logits_of(6, rows=500)
    draft = target + logits_of(7, rows=500) * 0.1
    chosen = Sampling(1.0, seed=1).choose(target, 0)
    together = sum(
        a == b for a, b in zip(chosen, Sampling(1.0, seed=1).choose(draft, 0), strict=True)
    )
    apart = sum(a == b for a, b in zip(chosen, Sampling(1.0, seed=2).choose(draft, 0), strict=True))
    assert together > 400 > 300 > apart


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", value) for value in (-0.1, 100.1, math.nan, math.inf)],
        ("top_k", -1),
        *[("top_p", value) for value in (-0.1, -1.0, 1.01, math.nan)],
        *[("seed", value) for value in (-1, MAX_SEED + 1)],
    ],
)
def test_a_parameter_out_of_range_is_named(name, value):
    with pytest.raises(
        SamplingError, match=f"^{name} = {value!r} is not possible; give "
    ) as caught:
        Sampling(**{name: value})
    assert (caught.value.name, caught.value.value) == (name, value)


def test_the_ends_of_the_ranges_are_inside():
    Sampling(temperature=100.0, top_k=0, top_p=1.0, seed=0)
    assert Sampling(0.5, top_k=10**9, top_p=0.0, seed=MAX_SEED).choose(LOGITS, 1 << 20) == [0]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.8, seed=3), Sampling(1.0, top_k=3, seed=4)]
)
def test_the_choices_in_order_begin_with_the_chosen_one(sampling):
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(1)) * 3
    positions = list(range(7, 27))
    for row, position, ranked in zip(
        logits, positions, sampling.rank(logits, positions, 4), strict=True
    ):
        assert ranked[0][0] == sampling.choose(row[None], position)[0]
        assert ranked == sampling.rank(row[None], [position], 4)[0], (
            "rows do not depend on each other"
        )
        sure = [each for _, each in ranked]
        assert sure == sorted(sure, reverse=True)
        assert 0 < sum(sure) <= 1 + 1e-6
        assert len({token for token, _ in ranked}) == len(ranked) == (3 if sampling.top_k else 4)


def test_the_order_of_equals_does_not_matter():
    assert Sampling().rank(torch.zeros(1, 5), [0], 3)[0][0] == (0, pytest.approx(0.2))
    assert len(Sampling().rank(torch.zeros(1, 2), [0], 4)[0]) == 2


@pytest.mark.parametrize("vocabulary", [3, TOP_BLOCK - 1, 5 * TOP_BLOCK, 9 * TOP_BLOCK + 7])
@pytest.mark.parametrize("place", [None, "first", "last"])
def test_the_best_tokens_of_a_large_vocabulary_are_those_of_the_whole(vocabulary, place):
    scores = logits_of(3, rows=4, vocabulary=vocabulary)
    if place is not None:  # all of them in one block, or behind the last whole one
        scores[:, slice(0, 3) if place == "first" else slice(-3, None)] += 100.0
    assert torch.equal(top_tokens(scores, 3), scores.topk(3).indices)
