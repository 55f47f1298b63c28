"""Intervals and tests for shares and ratios. Pure functions; all intervals are 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Z = 1.959964  # of the normal distribution, 97.5 %


@dataclass(frozen=True)
class Difference:
    """A difference of two shares on the same items, with its interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927); ``trials`` is at least 1."""
    p = successes / trials
    z2 = Z * Z / trials
    middle = p + z2 / 2
    half = Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: gains and losses are equally likely."""
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**changed)))


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Difference:
    """Return the share of ``after`` minus the share of ``before``, on the same items in order.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", method 10.
    """
    n = len(before)
    pairs = list(zip(before, after, strict=True))
    both = pairs.count((True, True))
    neither = pairs.count((False, False))
    gained = pairs.count((False, True))
    lost = pairs.count((True, False))
    p_after = (both + gained) / n
    p_before = (both + lost) / n
    low_after, high_after = wilson(both + gained, n)
    low_before, high_before = wilson(both + lost, n)
    phi = _correlation(both, gained, lost, neither)
    down = _joined(p_after - low_after, high_before - p_before, phi)
    up = _joined(high_after - p_after, p_before - low_before, phi)
    difference = p_after - p_before
    return Difference(difference, difference - down, difference + up)


def non_inferior(difference: Difference, margin: float) -> bool:
    """Return whether at most ``margin`` is lost, even at the lower end of the interval."""
    return difference.low > -margin


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile interval of a ratio of sums, by resampling the items."""
    above = np.asarray(numerators, dtype=float)
    below = np.asarray(denominators, dtype=float)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(above), (resamples, len(above)))
    low, high = np.percentile(above[picks].sum(axis=1) / below[picks].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Return phi of the paired table, with Newcombe's correction towards 0."""
    n = both + gained + lost + neither
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not margins:
        return 0.0
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
