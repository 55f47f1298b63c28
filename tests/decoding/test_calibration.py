"""A head that is not connected as it was trained is noticed by how its guesses fare, and others are
left alone."""

import pytest

from swarm.decoding.calibration import (
    ENOUGH,
    FIRST_PAUSE,
    LAGS,
    MAX_CHAINS,
    MAX_FAILED,
    Calibration,
    Calibrations,
)


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


NOBODY = frozenset[str]()
ONE, TWO, OTHERS = frozenset("a"), frozenset("ab"), frozenset("cd")


def passes(calibrations: Calibrations, tellers: frozenset[str]) -> None:
    for lag in range(1, LAGS + 1):
        for _ in range(ENOUGH):
            calibrations.of(tellers).observe(lag, True)


def fails(calibrations: Calibrations, tellers: frozenset[str]) -> None:
    for _ in range(ENOUGH):
        calibrations.of(tellers).observe(1, False)


def test_a_head_that_reads_answers_alone_is_at_fault_if_it_fails() -> None:
    calibrations = Calibrations()
    fails(calibrations, NOBODY)
    assert "does not read what it was trained on" in calibrations.fault
    assert calibrations.failure(NOBODY) == calibrations.fault
    assert not calibrations.doubted


def test_a_head_at_fault_is_tried_again_after_longer_and_longer_pauses() -> None:
    calibrations = Calibrations()
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
        fails(calibrations, NOBODY)
        for _ in range(pause):
            calibrations.begin_text()
            assert calibrations.failure(NOBODY)
        calibrations.begin_text()
        assert not calibrations.failure(NOBODY)
        calibrations.begin_text()  # which is no pause
    passes(calibrations, NOBODY)
    assert calibrations.passed


def test_what_passed_is_not_forgotten_after_a_pause() -> None:
    calibrations = Calibrations()
    passes(calibrations, ONE)
    fails(calibrations, OTHERS)
    for _ in range(2 * FIRST_PAUSE):
        calibrations.begin_text()
    assert calibrations.passed
    assert calibrations.failure(OTHERS)  # the head is not at fault, but one of these peers


def test_peers_that_a_head_has_failed_with_are_doubted_and_others_tried() -> None:
    calibrations = Calibrations()
    fails(calibrations, TWO)
    assert not calibrations.fault
    assert "or a peer tells wrong outputs" in calibrations.failure(TWO)
    assert calibrations.doubted == TWO
    assert not calibrations.failure(OTHERS)
    assert not calibrations.failure(ONE)


def test_a_head_that_passes_with_others_is_left_with_the_doubted_ones_alone() -> None:
    calibrations = Calibrations()
    fails(calibrations, TWO)
    passes(calibrations, OTHERS)
    assert calibrations.passed
    assert calibrations.failure(TWO)
    assert calibrations.failure(frozenset("bc"))
    assert not calibrations.failure(OTHERS)
    passes(calibrations, ONE)  # so it was the other one
    assert calibrations.doubted == frozenset("b")
    assert not calibrations.failure(frozenset("ac"))


def test_a_head_that_fails_with_different_peers_is_at_fault() -> None:
    calibrations = Calibrations()
    fails(calibrations, TWO)
    fails(calibrations, OTHERS)
    assert calibrations.fault
    assert calibrations.failure(frozenset("e")) == calibrations.fault
    assert not calibrations.doubted


def test_a_head_is_tried_with_few_sets_of_peers() -> None:
    calibrations = Calibrations()
    for number in range(MAX_FAILED):
        assert not calibrations.fault
        fails(calibrations, frozenset({"a", str(number)}))
    assert calibrations.fault


def test_the_sets_of_peers_that_are_told_apart_are_bounded() -> None:
    calibrations = Calibrations()
    first = calibrations.of(ONE)
    for number in range(MAX_CHAINS):
        assert calibrations.of(ONE) is first
        calibrations.of(frozenset({str(number)}))
    for number in range(MAX_CHAINS):
        calibrations.of(frozenset({f"{number} again"}))
    assert calibrations.of(ONE) is not first
