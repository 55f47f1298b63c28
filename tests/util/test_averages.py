"""Fading averages beside what they are defined as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.util.averages import FadingMean, ewma

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)
FADES = st.floats(0.05, 0.999)


@given(VALUES, FADES)
def test_a_fading_mean_weights_each_value_by_how_many_came_after_it(
    values: list[float], fade: float
) -> None:
    mean = FadingMean(fade)
    assert mean.value is None
    for value in values:
        mean.add(value)
    weights = [fade**age for age in reversed(range(len(values)))]
    weighted = sum(weight * value for weight, value in zip(weights, values, strict=True))
    assert mean.value == pytest.approx(weighted / sum(weights), rel=1e-6, abs=1e-4)
    assert mean.weight == pytest.approx(sum(weights))


@given(VALUES, FADES)
def test_an_average_begins_with_its_first_value_and_moves_by_the_rest(
    values: list[float], fade: float
) -> None:
    average = None
    for value in values:
        average = ewma(average, value, fade)
    expected = values[0]
    for value in values[1:]:
        expected += (1 - fade) * (value - expected)
    assert average == pytest.approx(expected, rel=1e-6, abs=1e-4)
    assert min(values) - 1e-6 <= average <= max(values) + 1e-6


def test_a_prior_counts_as_so_many_values() -> None:
    mean = FadingMean()
    assert mean.with_prior(0.7, 4.0) == pytest.approx(0.7)
    for _ in range(4):
        mean.count(1.0)
    assert mean.with_prior(0.5, 4.0) == pytest.approx(0.75)
    mean.age()
    assert mean.value == 1.0
    assert mean.weight == pytest.approx(4 * 0.95)
