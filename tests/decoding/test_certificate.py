"""What is chosen from bounds is what the exact logits choose, whatever lies between the bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.masks import EveryThird
from swarm.decoding.certificate import Bounds, Certificate, Choosing, certify
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping

VOCABULARY = 300
TEXT = (3, 5, 5, 7, 299)
PATHS = ((), (3,), (3, 8), (9, 250, 9, 1))

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-40, 0.01, 0.7, 1.0, 5.0, 100.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 20, 299, 300, 1000]),
    top_p=st.sampled_from([1.0, 1.0, 0.0, 0.3, 0.9, 0.9999]),
    seed=st.integers(0, 99),
    min_p=st.sampled_from([0.0, 0.0, 1e-4, 0.05, 0.9, 1.0]),
)
shapings = st.builds(
    Shaping,
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.5, 1.3, 100.0]),
    logit_bias=st.sampled_from([(), ((5, 3.0), (8, -100.0), (3000, 1.0)), ((299, 100.0),)]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7, -1.0]),
    masks=st.sampled_from([(), (), (EveryThird(VOCABULARY),)]),
    prompt_tokens=st.integers(0, len(TEXT)),
)


def choosing_of(sampling: Sampling, shaping: Shaping = NO_SHAPING, rows: int = 4) -> Choosing:
    return Choosing(sampling, shaping, TEXT, PATHS[:rows])


def logits_of(seed: int, spread: float, step: float) -> torch.Tensor:
    """Rows of logits; multiples of ``step``, so that some are equal."""
    values = torch.randn(len(PATHS), VOCABULARY, generator=torch.Generator().manual_seed(seed))
    return (values * spread / step).round() * step


def bounds_of(logits: torch.Tensor, seed: int, width: float) -> Bounds:
    """Bounds up to ``width`` away, in which the logits may lie anywhere; some are exact."""
    below, above = torch.rand(2, *logits.shape, generator=torch.Generator().manual_seed(seed))
    below, above = ((each * width).where(each < 0.95, 0.0) for each in (below, above))
    return Bounds(logits - below, logits + above)


def certified(
    logits: torch.Tensor, bounds: Bounds, choosing: Choosing, **limits: int
) -> Certificate:
    given = Bounds(bounds.lower.clone(), bounds.upper.clone())
    certificate = certify(given, choosing, lambda rows, tokens: logits[rows, tokens], **limits)
    # Narrowed in place, to nothing but the logits themselves.
    assert ((given.lower <= logits) & (logits <= given.upper)).all()
    assert (given.lower >= bounds.lower).all()
    computed = (given.lower == given.upper) & (bounds.lower != bounds.upper)
    assert certificate.refined == computed.sum(dim=-1).tolist()
    return certificate


@settings(deadline=None, max_examples=100)
@given(
    samplings,
    shapings,
    st.integers(0, 10**6),
    st.sampled_from([0.1, 2.0, 8.0]),
    st.sampled_from([1e-6, 0.5]),
    st.sampled_from([0.0, 0.05, 1.0, 30.0]),
)
def test_choices_are_those_of_exact_logits(sampling, shaping, seed, spread, step, width):
    logits = logits_of(seed, spread, step)
    choosing = choosing_of(sampling, shaping)
    certificate = certified(logits, bounds_of(logits, seed + 1, width), choosing)
    expected = choosing.choose(logits)
    unrestricted = sampling.top_k in (0, 300, 1000) and sampling.top_p == 1.0
    for choice, right in zip(certificate.choices, expected, strict=True):
        assert choice == right or (choice is None and sampling.temperature and not unrestricted)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.7, seed=1),
        Sampling(1.0, top_k=20, seed=2),
        Sampling(1.0, top_p=0.9, seed=3),
        Sampling(0.8, top_k=40, top_p=0.95, seed=4),
    ],
)
def test_narrow_bounds_take_few_exact_logits(sampling):
    rows = 4
    refined, certain = [], 0
    for seed in range(25):
        logits = logits_of(seed, 4.0, 1e-6)
        choosing = choosing_of(sampling)
        bounds = bounds_of(logits, seed, 0.2)
        certificate = certified(logits, bounds, choosing)
        refined += certificate.refined
        certain += sum(choice is not None for choice in certificate.choices)
    restricted = sampling.top_k or sampling.top_p < 1
    assert certain >= (0.9 if restricted else 1.0) * 25 * rows
    assert sum(refined) / len(refined) < (100 if restricted else 10)


def test_one_of_equal_logits_wins_by_its_id():
    logits = torch.zeros(1, VOCABULARY)
    logits[0, [40, 17, 203]] = 1.5
    certificate = certified(logits, bounds_of(logits, 1, 0.5), choosing_of(Sampling(), rows=1))
    assert certificate.choices == [17]


def test_it_gives_up_where_too_many_logits_are_wanted():
    logits = logits_of(1, 1.0, 1e-6)
    bounds = bounds_of(logits, 1, 100.0)
    certificate = certified(logits, bounds, choosing_of(Sampling()), most=50)
    assert certificate == Certificate([None] * 4, [0] * 4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.0, 20, 0.9)])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_never_chosen_by(sampling, wrong):
    logits = logits_of(1, 2.0, 1e-6)
    logits[1] = torch.where(torch.arange(VOCABULARY) % 7 == 3, wrong, logits[1])
    bounds = bounds_of(logits, 2, 0.5)
    for lower, upper in [
        (bounds.lower, bounds.upper),  # an approximation that is not a number
        (logits.nan_to_num(9.0, 9.0, 9.0) - 1, logits.nan_to_num(9.0, 9.0, 9.0) + 1),  # the logit
    ]:
        given = Bounds(lower.clone(), upper.clone())
        certificate = certify(given, choosing_of(sampling), lambda r, t: logits[r, t])
        finite = logits.isfinite().all(dim=-1).tolist()
        for choice, fine in zip(certificate.choices, finite, strict=True):
            assert fine or choice is None
        if not sampling.top_k:
            assert [choice is not None for choice in certificate.choices] == finite


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, seed=9), Sampling(0.7, 5)])
def test_a_list_of_the_best_logits_is_enough(sampling):
    """No logit can be computed; what is not listed is at most the least of the list."""
    certain = 0
    for seed in range(20):
        logits = logits_of(seed, 6.0, 1e-6)
        least = logits.topk(100).values[:, -1:]
        listed = logits >= least
        bounds = Bounds(logits.where(listed, -torch.inf), logits.where(listed, least))
        choosing = choosing_of(sampling, Shaping(repetition_penalty=1.1))
        certificate = certify(bounds, choosing, lambda rows, tokens: 1 / 0, most=0)
        for choice, right in zip(certificate.choices, choosing.choose(logits), strict=True):
            assert choice in (None, right)
            certain += choice is not None
    assert certain >= 70
