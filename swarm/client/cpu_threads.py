"""How many CPU threads a client drafts and judges with, when it does both at the same time.

torch's threads of one product wait for each other. If two products run side by side with all cores
each, every one of these threads may be without a core, and all others wait for it. So drafting and
judging never have more threads together than there are cores. While one of them has nothing to do,
the other one may use all. If other programs keep the cores busy, fewer are faster
(`swarm.client.thread_count`).
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from swarm.client.thread_count import ThreadCount

T = TypeVar("T")


@dataclass(frozen=True)
class Executors:
    """Where a client computes, so that the event loop stays free. One thread each."""

    drafting: Executor
    judging: Executor


@dataclass(frozen=True)
class CpuThreads:
    """torch's threads on the CPU for each of them.

    Attributes:
        drafting, judging: at most, while both compute.
        alone: at most, while only one of them does.
        tuned: whether fewer are taken where that is faster. Small models compute on one core
            whatever they may use.
    """

    drafting: int
    judging: int
    alone: int
    tuned: bool = False

    @classmethod
    def shared(cls, threads: int, beside: bool, large: bool = False) -> "CpuThreads":
        """Share out threads.

        Args:
            threads: that there are.
            beside: whether both compute on the CPU, one of them with a large model.
            large: whether one of them computes on the CPU with a large model.
        """
        if not beside:
            return cls(drafting=threads, judging=threads, alone=threads, tuned=large)
        judging = max(1, threads // 2)
        drafting = max(1, threads - judging)
        return cls(drafting=drafting, judging=judging, alone=threads, tuned=True)


class Cores:
    """Gives all threads to drafting or judging while the other one does not compute.

    Drafting has fewer where that is faster. For that it watches the draft model's forwards.
    """

    def __init__(self, threads: CpuThreads, clock: Callable[[], float] = time.perf_counter) -> None:
        self.threads = threads
        self._clock = clock
        self._drafting = 0  # works that run
        self._judging = 0
        self._judged = 0  # works so far
        self._count = ThreadCount(sorted({threads.alone, threads.drafting, 1}, reverse=True))

    def share(self, executors: Executors) -> Executors:
        """Return executors for the same threads, in which each work has its share of the cores."""
        if not self.threads.tuned:
            return executors
        return Executors(
            _Sharing(executors.drafting, self._draft), _Sharing(executors.judging, self._judge)
        )

    @contextmanager
    def forward(self) -> Iterator[None]:
        """While open, the calling thread runs a forward of the draft model."""
        count = self._for_drafting
        judged = self._judged + self._judging
        started = self._clock()
        _set_own(count)
        yield
        if judged == self._judged:  # nothing was judged meanwhile
            self._count.note(count, self._clock() - started)

    def layer(self) -> None:
        """Before each layer, give the draft model what it may use now: judging may have begun."""
        _set_own(self._for_drafting)

    @property
    def _for_drafting(self) -> int:
        count = self._count.next()
        return min(count, self.threads.drafting) if self._judging else count

    def _draft(self, work: Callable[..., T], *arguments: Any) -> T:
        self._drafting += 1
        try:
            _set_own(self._for_drafting)
            return work(*arguments)
        finally:
            self._drafting -= 1

    def _judge(self, work: Callable[..., T], *arguments: Any) -> T:
        self._judging += 1
        try:
            _set_own(self.threads.judging if self._drafting else self.threads.alone)
            return work(*arguments)
        finally:
            self._judging -= 1
            self._judged += 1


class _Sharing(Executor):
    """Runs works in another executor, each within ``run``."""

    def __init__(self, executor: Executor, run: Callable[..., Any]) -> None:
        self._executor = executor
        self._run = run

    def submit(self, work: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        """See `Executor.submit`."""
        return self._executor.submit(self._run, partial(work, **named), *arguments)


ONE_EACH = CpuThreads(drafting=1, judging=1, alone=1)


def _set_own(count: int) -> None:
    """Set how many threads the products of this thread take; other threads keep theirs."""
    before = torch.get_num_threads()  # a thread's first call takes over the process's number
    if before != count:  # to set it is more work
        torch.set_num_threads(count)
