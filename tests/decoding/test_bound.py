"""The yardstick of every benchmark, on cases that can be worked out by hand."""

import pytest

from swarm.decoding.bound import expected_tokens, speedup_bound, time_bound_ms


def test_nothing_kept_gains_nothing():
    assert speedup_bound(0.0, loop_ms=100.0, token_ms=4.0) == 1.0


def test_everything_kept_is_as_fast_as_the_slowest_part():
    assert speedup_bound(1.0, loop_ms=100.0, token_ms=4.0) == 25.0


def test_a_draft_slower_than_the_loop_is_bounded_by_plain_decoding():
    assert speedup_bound(0.8, loop_ms=100.0, token_ms=400.0) == 1.0
    assert time_bound_ms(10, 2, loop_ms=100.0, token_ms=400.0) == 10 * 100.0
    assert time_bound_ms(10, 2, loop_ms=100.0, token_ms=40.0) == 3 * 100.0 + 7 * 40.0


def test_the_bound_of_the_worked_example():
    # alpha 0.9, four peers, 30 ms links, 5 ms stages: D = 5 * 30 + 4 * 5.
    assert speedup_bound(0.9, loop_ms=170.0, token_ms=5.0) == pytest.approx(7.91, abs=0.01)


@pytest.mark.parametrize("window", [0, 1, 8])
def test_expected_tokens_from_none_kept_to_all_kept(window):
    assert expected_tokens(0.0, window) == 1.0
    assert expected_tokens(1.0, window) == window + 1


def test_expected_tokens_is_the_closed_form():
    for alpha in (0.1, 0.5, 0.9):
        assert expected_tokens(alpha, 8) == pytest.approx((1 - alpha**9) / (1 - alpha), rel=1e-12)


def test_expected_tokens_keeps_its_digits_near_certainty():
    assert expected_tokens(1.0 - 1e-16, 8) == pytest.approx(9.0, rel=1e-12)
