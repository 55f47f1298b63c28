"""What a product takes is the time of one thread, whatever else the computer does."""

import sys
import time

import pytest
import torch

from swarm.model.kernels.measuring import cpu_clock, least_in_turn_s, least_s, one_thread


def test_one_thread_computes_and_then_as_many_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform == "win32", reason="its clock of a thread is too coarse")
def test_time_without_a_core_does_not_count() -> None:
    assert cpu_clock is time.thread_time


@pytest.mark.parametrize(
    ("reading_s", "runs"), [([0.0, 0.1, 0.2, 0.24, 0.3, 0.33], 3), ([0.0, 0.3], 1)]
)
def test_the_fastest_run_counts_and_long_ones_are_not_repeated(
    reading_s: list[float], runs: int
) -> None:
    worked = []
    readings = iter(reading_s)
    fastest_s = least_s(lambda: worked.append(torch.get_num_threads()), 3, lambda: next(readings))
    took_s = [after - before for before, after in zip(*[iter(reading_s)] * 2, strict=True)]
    assert fastest_s == min(took_s)
    assert worked == [1] * (1 + runs)  # the first one warms up


def test_works_take_turns() -> None:
    worked: list[str] = []
    works = [lambda: worked.append("a"), lambda: worked.append("b")]
    readings = iter([0.0, 0.02, 1.0, 1.03, 2.0, 2.01, 3.0, 3.05])
    assert least_in_turn_s(works, 2, lambda: next(readings)) == pytest.approx([0.01, 0.03])
    assert worked == ["a", "b"] * 3
