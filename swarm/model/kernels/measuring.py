"""Measuring products on a CPU that does other work meanwhile.

What counts is the time that one thread computes. How long work takes by the clock on the wall
depends on the other programs, and with several threads on which of them wait for each other. The
matrices must not stay in the processor's caches, since those of a model do not.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

Clock = Callable[[], float]
"""Returns seconds."""

REPEATS = 3
SMALL_REPEATS = 8  # of works of microseconds
HOPELESS = 200.0
ENOUGH_S = 0.25  # of runs; where one takes long, others tell no more
# Windows counts a thread's time in steps of 16 ms.
cpu_clock: Clock = time.perf_counter if sys.platform == "win32" else time.thread_time


@contextmanager
def one_thread() -> Iterator[None]:
    """While open, products of this thread take no other threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_hopeless(
    work: Callable[[], object], than: Callable[[], object], clock: Clock = cpu_clock
) -> bool:
    """Return whether a work takes `HOPELESS` times as long as another one of the same size.

    To be asked of a small size: what a library only emulates here may take minutes at a large one.
    """
    taken_s, other_s = least_in_turn_s([work, than], SMALL_REPEATS, clock)
    return taken_s > HOPELESS * other_s


def least_s(work: Callable[[], object], repeats: int = REPEATS, clock: Clock = cpu_clock) -> float:
    """Return the seconds of the fastest run on one thread, behind one that does not count."""
    [least] = least_in_turn_s([work], repeats, clock)
    return least


def least_in_turn_s(
    works: Sequence[Callable[[], object]], repeats: int = REPEATS, clock: Clock = cpu_clock
) -> list[float]:
    """Return the same for each of some works.

    They take turns: so what makes the computer slow for a while, such as other programs that read
    much memory, makes it slow for all of them.
    """
    with one_thread():
        for work in works:
            work()
        times: list[list[float]] = [[] for _ in works]
        while len(times[0]) < repeats and max(map(sum, times)) < ENOUGH_S:
            for work, taken in zip(works, times, strict=True):
                started = clock()
                work()
                taken.append(clock() - started)
        return [min(taken) for taken in times]
