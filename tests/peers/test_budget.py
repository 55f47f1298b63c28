import pytest

from peers.budget import CacheBudget, CacheFull


def test_what_is_reserved_is_released() -> None:
    budget = CacheBudget(100)
    budget.reserve(60)
    budget.reserve(40)
    assert budget.free_tokens == 0
    budget.release(40)
    budget.release(60)
    assert budget.free_tokens == 100


def test_more_than_is_free_is_refused_and_nothing_reserved() -> None:
    budget = CacheBudget(100)
    budget.reserve(60)
    with pytest.raises(CacheFull) as caught:
        budget.reserve(41)
    assert (caught.value.asked_tokens, caught.value.free_tokens, caught.value.total_tokens) == (41, 40, 100)
    assert "41 tokens" in str(caught.value)
    assert budget.free_tokens == 40


def test_releasing_more_than_was_reserved_is_noticed() -> None:
    budget = CacheBudget(100)
    with pytest.raises(AssertionError):
        budget.release(1)
