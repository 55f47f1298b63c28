"""How many CPU threads a client drafts and judges with, when it does both at the same time.

torch's threads of one product wait for each other. If two products run side by side with all cores
each, every one of these threads may be without a core, and all others wait for it. So drafting and
judging never have more threads together than there are cores. While one of them has nothing to do,
the other one may use all.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

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
        drafting, judging: while both compute.
        alone: while only one of them does.
    """

    drafting: int
    judging: int
    alone: int

    @classmethod
    def shared(cls, threads: int, beside: bool) -> "CpuThreads":
        """Share out threads.

        Args:
            threads: that there are.
            beside: whether both compute on the CPU, with a model large enough to use many cores.
                Small models compute on one core whatever they may use; nothing changes for them.
        """
        if not beside:
            return cls(drafting=threads, judging=threads, alone=threads)
        judging = max(1, threads // 2)
        return cls(drafting=max(1, threads - judging), judging=judging, alone=threads)


class Cores:
    """Gives all threads to drafting or judging while the other one does not compute."""

    def __init__(self, threads: CpuThreads) -> None:
        self.threads = threads
        self._drafting = 0  # works in progress
        self._judging = 0

    def share(self, executors: Executors) -> Executors:
        """Return executors for the same threads, in which each work has its share of the cores."""
        if self.threads.drafting == self.threads.judging == self.threads.alone:
            return executors
        return Executors(
            _Sharing(executors.drafting, self._draft), _Sharing(executors.judging, self._judge)
        )

    def renew_drafting(self) -> None:
        """Give the drafting thread what it may use from now on, since judging may have begun.

        It takes microseconds, so that it may be called between the layers of a model.
        """
        _set_own(self.threads.drafting if self._judging else self.threads.alone)

    def _draft(self, work: Callable[..., T], *arguments: Any) -> T:
        self._drafting += 1
        try:
            self.renew_drafting()
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
