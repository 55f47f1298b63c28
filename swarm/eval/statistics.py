"""Intervals and tests for shares and ratios. Pure functions; all intervals are 95 %."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Z = 1.959964  # of the normal distribution, 97.5 %
RESAMPLES = 2000

Interval = tuple[float, float]
Ratio = tuple[Sequence[float], Sequence[float]]  # numerators and denominators, one for each item


@dataclass(frozen=True)
class Difference:
    """A difference of two shares on the same items, with its interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
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


def bootstrap(
    items: int, statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]], *, seed: int
) -> Interval:
    """Return the percentile interval of a statistic, by resampling the items.

    Args:
        items: how many there are, at least 1.
        statistic: given the indices of resampled items, ``[resamples, items]``, returns its value
            in each resample, ``[resamples]``. NaN where it has none.
    """
    picks = np.random.default_rng(seed).integers(0, items, (RESAMPLES, items))
    low, high = np.nanpercentile(statistic(picks), [2.5, 97.5])
    return float(low), float(high)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int
) -> Interval:
    """Return the percentile interval of a ratio of sums, by resampling the items."""
    above = np.asarray(numerators, dtype=float)
    below = np.asarray(denominators, dtype=float)
    return bootstrap(
        len(above), lambda picks: above[picks].sum(axis=1) / below[picks].sum(axis=1), seed=seed
    )


def bootstrap_ratio_difference(before: Ratio, after: Ratio, *, seed: int) -> Interval:
    """Return the percentile interval of the ratio ``after`` minus the ratio ``before``.

    Both are ratios of sums over the same items in order, which are resampled together.
    """
    sums = [np.asarray(each, dtype=float) for each in (*after, *before)]

    def difference(picks: NDArray[np.intp]) -> NDArray[np.float64]:
        above, below, above_before, below_before = (each[picks].sum(axis=1) for each in sums)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have nothing
            ratios: NDArray[np.float64] = above / below - above_before / below_before
        return ratios

    return bootstrap(len(sums[0]), difference, seed=seed)


def rouge_l(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Return how alike two sequences are, 0 to 1: ROUGE-L's F1 (Lin 2004).

    It is twice the length of the longest common subsequence over the sum of both lengths.
    """
    if not one and not other:
        return 1.0
    return 2 * common_subsequence(one, other) / (len(one) + len(other))


def common_subsequence(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence (Hyyrö 2004, bit-parallel)."""
    places: dict[Hashable, int] = {}
    for at, element in enumerate(one):
        places[element] = places.get(element, 0) | 1 << at
    everywhere = (1 << len(one)) - 1
    row = everywhere  # a 0 for each element of a common subsequence
    for element in other:
        matches = row & places.get(element, 0)
        row = (row + matches | row - matches) & everywhere
    return len(one) - row.bit_count()


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
