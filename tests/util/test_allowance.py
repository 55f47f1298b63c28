import pytest

from swarm.util.allowance import Allowance


def test_each_key_takes_so_much_in_so_much_time() -> None:
    now = 0.0
    allowance = Allowance(3, 60.0, lambda: now)
    assert [allowance.take("a", amount) for amount in (2, 2, 1, 1)] == [True, False, True, False]
    assert allowance.take("b", 3)
    now = 60.0
    assert allowance.take("a", 3)
    now = 1.0  # the clock is turned back
    assert allowance.take("a", 3)


def test_new_keys_get_nothing_while_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Allowance, "MAX_KEYS", 2)
    now = 0.0
    allowance = Allowance(2, 60.0, lambda: now)
    assert [allowance.take(key) for key in "abca"] == [True, True, False, True]
    now = 61.0
    assert allowance.take("c")


def test_asking_takes_nothing() -> None:
    allowance = Allowance(2, 60.0, lambda: 0.0)
    assert [allowance.allows("a", 2) for _ in range(3)] == [True] * 3
    assert allowance.take("a", 2)
    assert not allowance.allows("a")
    assert allowance.allows("b")


def test_who_was_charged_too_much_gets_nothing_until_later() -> None:
    now = 0.0
    allowance = Allowance(2, 60.0, lambda: now)
    assert allowance.take("a", 0)
    allowance.charge("a", 5)
    assert not allowance.take("a", 0)
    assert allowance.take("b", 0)
    now = 60.0
    assert allowance.take("a", 0)
