import pytest

from peers.compute.cache_budget import (
    FIRST_LIFE_S,
    MAX_RETRY_MS,
    MIN_RETRY_MS,
    CacheBudget,
    CacheFull,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def retry_ms(budget: CacheBudget, tokens: int) -> float | None:
    with pytest.raises(CacheFull) as caught:
        budget.reserve(tokens)
    return caught.value.retry_ms


def test_what_is_reserved_is_released() -> None:
    budget = CacheBudget(100)
    first, second = budget.reserve(60), budget.reserve(40)
    assert budget.free_tokens == 0
    budget.release(second)
    assert budget.free_tokens == 40
    budget.release(first)
    assert budget.free_tokens == 100


def test_more_than_is_free_is_refused_and_nothing_reserved() -> None:
    budget = CacheBudget(100)
    budget.reserve(60)
    with pytest.raises(CacheFull) as caught:
        budget.reserve(41)
    assert (caught.value.asked_tokens, caught.value.free_tokens, caught.value.total_tokens) == (
        41,
        40,
        100,
    )
    assert "41 tokens" in str(caught.value)
    assert budget.free_tokens == 40


def test_releasing_twice_is_noticed() -> None:
    budget = CacheBudget(100)
    reservation = budget.reserve(1)
    budget.release(reservation)
    with pytest.raises(KeyError):
        budget.release(reservation)
    assert budget.free_tokens == 100


def test_who_is_refused_learns_when_enough_will_have_been_given_back() -> None:
    budget = CacheBudget(100)
    budget.reserve(100)
    assert retry_ms(budget, 50) == FIRST_LIFE_S * 1e3 / 2  # within one life, all is given back
    assert retry_ms(budget, 100) == FIRST_LIFE_S * 1e3


def test_the_hint_follows_how_long_sessions_live() -> None:
    clock = Clock()
    budget = CacheBudget(100, clock)
    for _ in range(64):
        reservation = budget.reserve(100)
        clock.now_s += 2.0
        budget.release(reservation)
    budget.reserve(100)
    assert retry_ms(budget, 100) == pytest.approx(2_000, rel=0.01)


@pytest.mark.parametrize(("life_s", "bound"), [(0.0, MIN_RETRY_MS), (1e6, MAX_RETRY_MS)])
def test_the_hint_is_bounded(life_s: float, bound: float) -> None:
    clock = Clock()
    budget = CacheBudget(100, clock)
    for _ in range(64):
        reservation = budget.reserve(100)
        clock.now_s += life_s
        budget.release(reservation)
    budget.reserve(100)
    assert retry_ms(budget, 100) == bound


def test_what_will_never_fit_gets_no_hint() -> None:
    assert retry_ms(CacheBudget(100), 101) is None


def test_a_session_may_cost_more_than_its_tokens() -> None:
    budget = CacheBudget(100, session_tokens=30)
    assert budget.free_tokens == 70
    short = budget.reserve(10)
    assert budget.free_tokens == 30
    assert retry_ms(budget, 31) is not None
    assert retry_ms(budget, 71) is None
    long = budget.reserve(30)
    assert budget.free_tokens == 0
    budget.release(short)
    assert budget.free_tokens == 10
    budget.release(long)
    assert budget.free_tokens == 70
