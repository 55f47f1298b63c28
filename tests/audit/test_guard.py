"""Answers that cannot be: tests/client/test_liars.py shows what becomes of them."""

import pytest
import torch

from swarm.audit.guard import ENOUGH, MAX_SEEN, WIDEN, Guard

HIDDEN = torch.ones(ENOUGH, 16)


def test_what_is_not_finite_or_zero_is_never_an_answer() -> None:
    guard = Guard()
    for wrong in (float("nan"), float("inf"), 0.0):
        rows = HIDDEN.clone()
        rows[3] = wrong
        assert guard.objection(rows)
    assert guard.objection(HIDDEN) is None
    assert guard.objection(HIDDEN[:0]) is None


@pytest.mark.parametrize("factor", [2 * WIDEN, 0.5 / WIDEN])
def test_sizes_are_learned(factor: float) -> None:
    guard = Guard()
    assert guard.objection(HIDDEN * 5) is None
    assert guard.objection(HIDDEN) is None
    objection = guard.objection(HIDDEN[:1] * 5 ** (factor > 1) * factor)
    assert objection is not None
    assert "sizes" in objection
    assert guard.objection(HIDDEN * 5) is None


def test_what_was_objected_to_teaches_nothing() -> None:
    guard = Guard()
    guard.objection(HIDDEN)
    for _ in range(2 * MAX_SEEN // ENOUGH):
        assert guard.objection(HIDDEN * 1e6)
    assert guard.objection(HIDDEN) is None


def test_half_precision_that_is_large_is_no_infinity() -> None:
    assert Guard().objection(torch.full((2, 64), 60_000.0, dtype=torch.float16)) is None
