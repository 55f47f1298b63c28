"""What rates and limits promise, whatever is asked of them."""

from collections import defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.clock import Clock
from swarm.util.rates import ConcurrencyLimit, Rate, TokenBuckets

RATES = st.builds(Rate, st.floats(0.01, 100), st.floats(1, 1000))
AMOUNTS = st.floats(0, 1200)
PAUSES_S = st.floats(0, 100)


def test_a_burst_is_free_and_then_a_rate_holds(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(2.0, 3), clock)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.wait_s("a") == 0.5
    assert buckets.take("b"), "others have buckets of their own"
    clock.now += 0.5
    assert (buckets.take("a"), buckets.take("a")) == (True, False)
    clock.now += 100
    assert [buckets.take("a") for _ in range(4)][3] is False, "more than a burst is never saved"


def test_asking_takes_nothing(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(2.0, 1), clock)
    assert [buckets.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert [buckets.has("a") for _ in range(3)] == [True] * 3
    assert not len(buckets)
    assert buckets.take("a")
    assert [buckets.wait_s("a") for _ in range(3)] == [0.5, 0.5, 0.5]
    assert not buckets.has("a")


def test_what_was_overdrawn_is_paid_off_by_waiting(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(10.0, 5), clock)
    assert buckets.draw("a", 5) == 0
    assert buckets.has("a", 0)
    assert buckets.draw("a", 20) == 2.0
    assert not buckets.has("a", 0)
    clock.now += 2.0
    assert buckets.has("a", 0)
    assert buckets.draw("a", 0) == 0


def test_what_did_not_come_about_is_given_back(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(0.1, 1), clock)
    assert buckets.take("a")
    buckets.give_back("a")
    buckets.give_back("a")
    assert buckets.take("a")
    assert not buckets.take("a")
    buckets.forget("a")
    assert buckets.take("a")


def test_a_clock_that_is_turned_back_neither_fills_buckets_nor_stops_them(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(1.0, 2), clock)
    assert buckets.take("a", 2)
    clock.now -= 500
    assert not buckets.take("a")
    clock.now += 1
    assert buckets.take("a")


def test_of_many_keys_the_least_recently_used_is_forgotten(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(0.001, 1), clock, most_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key)
    assert len(buckets) == 2
    assert [buckets.has(key) for key in "abc"] == [False, True, False]


@given(RATES, st.lists(st.tuples(st.sampled_from("abc"), AMOUNTS, PAUSES_S), max_size=60))
@example(Rate(1.0, 1), [("a", 1.0, 0.0)] * 3)
def test_never_more_than_a_burst_and_the_rate_pass(
    rate: Rate, asked: list[tuple[str, float, float]]
) -> None:
    """Between any two moments, for every key."""
    clock = Clock()
    buckets = TokenBuckets(rate, clock)
    passed: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, amount, pause_s in asked:
        clock.now += pause_s
        if buckets.take(key, amount):
            passed[key].append((clock.now, amount))
        else:
            assert buckets.wait_s(key, amount) > 0
    for taken in passed.values():
        for first, (began, _) in enumerate(taken):
            for last in range(first, len(taken)):
                sum_taken = sum(amount for _, amount in taken[first : last + 1])
                most = rate.burst + rate.per_second * (taken[last][0] - began)
                assert sum_taken <= most * (1 + 1e-9) + 1e-6


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 60), PAUSES_S), max_size=60))
@example([(0, 60, 0), (1, 60, 0), (2, 60, 0), (0, 30, 0), (3, 60, 0), (0, 60, 0)])
@example([(0, 60, 0), (1, 60, 0), (2, 60, 0), (0, 60, 0), (3, 60, 0), (0, 60, 0)])
def test_a_forgotten_key_gains_only_what_its_bucket_lacked(
    asked: list[tuple[int, float, float]],
) -> None:
    """Memory for three keys behaves as unlimited memory, but for a key after which three others
    were used, all before its bucket was full."""
    clock, rate = Clock(), Rate(0.5, 100)
    buckets = TokenBuckets(rate, clock, most_keys=3)
    unlimited = TokenBuckets(rate, clock, most_keys=1000)
    used: list[int] = []
    for key, amount, pause_s in asked:
        clock.now += pause_s
        since = used[used.index(key) :] if key in used else []
        if not unlimited.has(key, rate.burst) and len(since) > 3:  # forgotten before it was full
            unlimited.forget(key)
        assert buckets.has(key, amount) == unlimited.has(key, amount)
        if buckets.take(key, amount):
            unlimited.draw(key, amount)
            used = [each for each in used if each != key] + [key]
        elif key in used[-3:]:  # it is remembered, and asks too much
            used = [each for each in used if each != key] + [key]
        assert len(buckets) <= 3


@pytest.mark.parametrize("wrong", [(0, 5), (1, 0.5)])
def test_a_rate_is_checked(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no rate"):
        Rate(*wrong)


def test_so_much_a_minute_may_come_at_once() -> None:
    assert Rate.a_minute(120) == Rate(2.0, 120)


@given(st.integers(0, 6), st.integers(0, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 3))))
def test_no_more_are_under_way_than_the_limits_say(
    most: int, each: int, events: list[tuple[bool, int]]
) -> None:
    limit = ConcurrencyLimit(most, each)
    under_way: list[int] = []
    for enters, key in events:
        if enters:
            expected = len(under_way) < most and under_way.count(key) < each
            assert limit.enter(key) == expected
            under_way += [key] * expected
        elif key in under_way:
            limit.leave(key)
            under_way.remove(key)
        assert len(limit) == len(under_way)
    assert set(limit._under_way.elements()) == set(under_way), "nothing is remembered for nothing"
