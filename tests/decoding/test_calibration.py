"""A head that is not connected as it was trained is noticed by how its guesses fare, and others are
left alone."""

import pytest

from swarm.decoding.calibration import ENOUGH, LAGS, Calibration
from swarm.decoding.confidence import Confidence, Guess
from swarm.decoding.drafting.drafter import Source


def calibrated(*rates: float) -> Calibration:
    """What is known after many guesses of which these shares are right, by lag."""
    calibration = Calibration()
    for index in range(4 * ENOUGH):
        for lag, rate in enumerate(rates, 1):
            calibration.observe(lag, int(rate * index) < int(rate * (index + 1)))
    return calibration


@pytest.mark.parametrize(
    "rates",
    [
        (0.95, 0.9, 0.85, 0.8),
        (0.53, 0.58, 0.66, 0.7),  # a block head without a mask for what is known
        (0.3, 0.2, 0.12, 0.1),  # a poor one
        (0.15, 0.1, 0.1, 0.05),
        (0.5,),
    ],
)
def test_heads_that_guess_are_left_alone(rates: tuple[float, ...]) -> None:
    calibration = calibrated(*rates)
    assert calibration.failure == ""
    known = [rate for rate in calibration.rates if rate is not None]
    assert known == pytest.approx(list(rates), abs=0.05)
    assert calibration.rates[len(rates) :] == (None,) * (LAGS - len(rates))


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.08])
def test_a_wrong_layer_keeps_hardly_a_first_token(rate: float) -> None:
    assert "does not read what it was trained on" in calibrated(rate, rate, 0, 0).failure


@pytest.mark.parametrize("rates", [(0.85, 0.1, 0.02, 0), (0.6, 0.05), (0.9, 0.8, 0.1)])
def test_a_wrong_state_keeps_first_tokens_alone(rates: tuple[float, ...]) -> None:
    assert "does not go on with the states" in calibrated(*rates).failure


def test_only_first_choices_of_heads_count() -> None:
    confidence = Confidence()
    for guess in (
        Guess(Source.FEATURES, 1, 0.5),
        Guess(Source.MODEL, 0, 0.5),
        Guess(Source.COPY, 0, None, 5),
        Guess(Source.FEATURES, 0, 0.5, lag=LAGS + 1),
    ):
        for _ in range(2 * ENOUGH):
            confidence.observe(guess, False)
    assert confidence.calibration == Calibration()
    for _ in range(2 * ENOUGH):
        confidence.observe(Guess(Source.FEATURES, 0, 0.5), False)
    assert confidence.calibration.failure
