"""The rules for comparison are what their papers say."""

import math

import pytest
import torch

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.chance import Chance
from swarm.decoding.rules.lenient import Lenient
from swarm.decoding.rules.near_tie import NearTie
from swarm.decoding.rules.relaxed import Miss
from swarm.decoding.rules.typical import Typical
from swarm.decoding.sampling import Sampling

TARGET = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
MANY = 4000


def miss(drafted, draft=None, position=0, seed=0):
    return Miss([0] * position, 0, Drafted(drafted, draft), TARGET, Sampling(1.0, seed=seed))


@pytest.mark.parametrize(
    ("ratio", "drafted", "passes"), [(0.5, 1, True), (0.8, 1, False), (0.1, 2, False)]
)
def test_near_tie_lets_a_likely_second_choice_pass(ratio, drafted, passes):
    assert NearTie(ratio).verdict(miss(drafted)).passes == passes


def test_typical_acceptance_asks_for_less_where_the_target_is_unsure():
    entropy = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    just = 0.2 / math.exp(-entropy)
    assert Typical(epsilon=1, delta=just * 0.99).verdict(miss(2)).passes
    assert not Typical(epsilon=1, delta=just * 1.01).verdict(miss(2)).passes
    assert Typical(epsilon=0.15, delta=100).verdict(miss(2)).passes


def share(relaxation, **how):
    return sum(relaxation.verdict(miss(position=i, **how)).passes for i in range(MANY)) / MANY


def within(expected):
    """Five standard errors of a share among MANY."""
    return pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / MANY))


def test_lenience_divides_the_drafts_probability():
    draft = torch.tensor([0.1, 0.1, 0.1, 0.7]).log()
    assert share(Lenient(0.5), drafted=3, draft=draft) == within(0.1 / (0.5 * 0.7))
    # a guess without a distribution was certain of itself
    assert share(Lenient(1.0), drafted=2) == within(0.2)
    assert share(Lenient(0.1), drafted=1, draft=draft) == 1.0


def test_chance_is_blind():
    assert share(Chance(0.3), drafted=1) == within(0.3)
    assert share(Chance(0.3), drafted=3) == within(0.3)
    assert (share(Chance(0), drafted=1), share(Chance(1), drafted=1)) == (0.0, 1.0)
    assert Chance(0).exact
    assert not Chance(0.3).exact


def test_the_same_seed_and_position_throw_the_same_dice():
    for relaxation in (Chance(0.5), Lenient(0.5)):
        once, again, other = (
            [relaxation.verdict(miss(2, position=i, seed=seed)).passes for i in range(50)]
            for seed in (1, 1, 2)
        )
        assert once == again != other
