"""The window that gives the most tokens per second, found from what the loops show."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.decoding.bound import expected_tokens
from swarm.decoding.policy import LoopReport
from swarm.decoding.window import (
    MAX_AUTO_WINDOW,
    PROBE_EVERY,
    AutoWindow,
    FixedWindow,
    best_window,
)
from swarm.util.averages import FadingLine


def rate(alpha, window, fixed, slope, draft):
    """The closed form: expected tokens per millisecond."""
    return expected_tokens(alpha, window) / (window * draft + fixed + slope * (window + 1))


def best_rate(*law):
    alpha, *times = law
    return max(rate(alpha, window, *times) for window in range(MAX_AUTO_WINDOW + 1))


def loops(policy, count, alpha, fixed, slope, draft, rng, noise=0.0):
    """Let the policy run a generation whose loops obey a law."""
    for _ in range(count):
        window = policy.plan().window
        kept = next((i for i in range(window) if rng.random() >= alpha), window)
        loop_ms = (fixed + slope * (window + 1)) * rng.uniform(1 - noise, 1 + noise)
        policy.observe(LoopReport(window + 1, loop_ms, window, kept, window * draft))


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), max_size=12), st.floats(0, 500), st.floats(0, 50), st.floats(0, 50)
)
def test_the_best_window_is_the_best_of_all(acceptance, fixed, slope, draft):
    def rate_of(window):
        tokens, reach = 1.0, 1.0
        for chance in acceptance[:window]:
            reach *= chance
            tokens += reach
        return tokens / max(window * draft + fixed + slope * (window + 1), 1e-9)

    best = best_window(acceptance, fixed, slope, draft)
    assert rate_of(best) == pytest.approx(max(map(rate_of, range(len(acceptance) + 1))), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.3, 0.95),
    st.floats(20, 400),
    st.floats(0.0, 4.0),
    st.floats(0.2, 5.0),
    st.sampled_from([0.0, 0.1]),
)
def test_it_comes_near_the_best_of_the_closed_form(alpha, fixed, slope, draft, noise):
    policy, rng = AutoWindow(), random.Random(1)
    loops(policy, 150, alpha, fixed, slope, draft, rng, noise)
    reached = []
    for _ in range(60):
        loops(policy, 1, alpha, fixed, slope, draft, rng, noise)
        reached.append(rate(alpha, policy.plan().window, fixed, slope, draft))
    # Twenty loops' worth of dice tell alpha to a few percent, and the optimum is flat.
    assert sum(reached) / len(reached) >= 0.9 * best_rate(alpha, fixed, slope, draft)


def test_where_drafting_does_not_pay_it_falls_to_none_and_asks_again_now_and_then():
    policy, rng = AutoWindow(), random.Random(2)
    loops(policy, 60, 0.05, 10.0, 5.0, 20.0, rng)
    sizes = []
    for _ in range(4 * PROBE_EVERY):
        sizes.append(policy.plan().window)
        loops(policy, 1, 0.05, 10.0, 5.0, 20.0, rng)
    assert sizes.count(0) >= 0.9 * len(sizes)
    assert any(sizes)


def test_it_comes_back_when_the_draft_is_right_again():
    policy, rng = AutoWindow(), random.Random(3)
    loops(policy, 60, 0.0, 50.0, 1.0, 20.0, rng)
    assert policy.plan().window == 0
    loops(policy, 8 * PROBE_EVERY, 0.95, 50.0, 1.0, 5.0, rng)
    assert policy.plan().window > 4


def test_a_long_way_makes_long_windows():
    sizes = []
    for fixed in (5.0, 50.0, 500.0):
        policy = AutoWindow()
        loops(policy, 200, 0.9, fixed, 1.0, 2.0, random.Random(4))
        sizes.append(policy.plan().window)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_a_fixed_window_learns_nothing():
    policy = FixedWindow(5)
    policy.observe(LoopReport(6, 1e6, 5, 0, 1e6))
    assert policy.plan().window == 5


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0, 100), st.lists(st.integers(1, 64), min_size=2, unique=True))
def test_a_line_through_points_is_found(fixed, slope, places):
    line = FadingLine()
    for _ in range(20):
        for place in places:
            line.add(place, fixed + slope * place)
    for place in places:
        assert line.fixed + line.slope * place == pytest.approx(
            fixed + slope * place, rel=0.5, abs=1.0
        )
    assert line.slope <= slope * (1 + 1e-6) + 1e-6  # drawn towards 0, never beyond


def test_points_at_one_place_say_nothing_about_the_slope():
    line = FadingLine()
    for _ in range(10):
        line.add(9, 120.0)
    assert (line.slope, line.fixed) == (0.0, pytest.approx(120.0))


def test_a_line_that_falls_is_taken_to_be_flat():
    line = FadingLine()
    for place in range(1, 10):
        line.add(place, 100.0 - place)
    assert line.slope == 0.0
