"""Published values, and intervals that hold what they promise."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.eval.statistics import (
    bootstrap_ratio,
    bootstrap_ratio_difference,
    common_subsequence,
    mcnemar_exact,
    non_inferior,
    paired_difference,
    rouge_l,
    wilson,
)


def test_wilson_by_published_values():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I: 81 of 263, 15 of 148, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 300), st.data())
def test_wilson_holds_the_share_itself(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_mcnemar_by_hand():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(1, 4) == mcnemar_exact(4, 1) == pytest.approx(2 * 6 / 32)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 3000) < 1e-300  # no overflow


def table(both, gained, lost, neither):
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17:2635), table II, method 10.
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((0, 0, 0, 54), -0.0664, 0.0664),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_a_paired_difference_by_published_values(cells, low, high):
    difference = paired_difference(*table(*cells))
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=1e-4)


def test_a_paired_interval_holds_the_truth_as_often_as_it_says():
    rng, covered, runs = random.Random(1), 0, 600
    for _ in range(runs):
        before, after = [], []
        for _ in range(150):
            right = rng.random() < 0.9
            before.append(right)
            after.append(rng.random() < (0.95 if right else 0.3))
        truth = 0.9 * 0.95 + 0.1 * 0.3 - 0.9
        difference = paired_difference(before, after)
        covered += difference.low <= truth <= difference.high
    assert covered / runs >= 0.93


def test_not_inferior_means_even_at_the_lower_end():
    same = paired_difference(*table(990, 0, 0, 10))
    assert non_inferior(same, 0.01)
    assert not non_inferior(same, 0.001)
    assert not non_inferior(paired_difference(*table(900, 0, 90, 10)), 0.01)


def test_a_ratio_lies_in_its_interval_and_the_seed_decides():
    tokens, loops = [10, 20, 30, 40] * 20, [2, 5, 6, 9] * 20
    low, high = bootstrap_ratio(tokens, loops, seed=1)
    assert low < sum(tokens) / sum(loops) < high
    assert (
        (low, high)
        == bootstrap_ratio(tokens, loops, seed=1)
        != bootstrap_ratio(tokens, loops, seed=2)
    )


def test_a_difference_of_ratios_resamples_items_together():
    tokens, loops = [10, 20, 30, 40] * 20, [2, 5, 6, 9] * 20
    same = bootstrap_ratio_difference((tokens, loops), (tokens, loops), seed=1)
    assert same == (0.0, 0.0)
    faster = [loop - 1 for loop in loops]
    low, high = bootstrap_ratio_difference((tokens, loops), (tokens, faster), seed=1)
    truth = sum(tokens) / sum(faster) - sum(tokens) / sum(loops)
    assert 0 < low < truth < high


def test_a_resample_without_anything_has_no_ratio():
    low, high = bootstrap_ratio_difference(([1, 0], [1, 1]), ([1, 0], [1, 0]), seed=1)
    assert (low, high) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("", "", 0),
        ("abc", "", 0),
        ("abcde", "abcde", 5),
        ("abcbdab", "bdcaba", 4),
        ("aaaa", "aa", 2),
        ("abc", "xyz", 0),
        ("xaxbxc", "abc", 3),
    ],
)
def test_the_longest_common_subsequence(one, other, common):
    assert common_subsequence(one, other) == common_subsequence(other, one) == common


def test_the_longest_common_subsequence_is_that_of_the_textbook():
    rng = random.Random(2)
    for _ in range(200):
        one, other = ([rng.randrange(4) for _ in range(rng.randrange(90))] for _ in range(2))
        best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, left in enumerate(one):
            for j, right in enumerate(other):
                best[i + 1][j + 1] = (
                    best[i][j] + 1 if left == right else max(best[i][j + 1], best[i + 1][j])
                )
        assert common_subsequence(one, other) == best[-1][-1]


def test_likeness_is_rouge_l():
    # "police killed the gunman" and "police kill the gunman" (Lin 2004): 3 of 4 words
    reference = ["police", "killed", "the", "gunman"]
    assert rouge_l(reference, ["police", "kill", "the", "gunman"]) == 0.75
    assert rouge_l([], []) == 1.0
    assert rouge_l([1], []) == 0.0
