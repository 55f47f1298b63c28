"""How many CPU threads a client drafts and judges with, when it does both at the same time.

torch's threads of one product wait for each other. If two products run side by side with all cores
each, every one of these threads may be without a core, and all others wait for it. So drafting and
judging never have more threads together than there are cores.
"""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Executors:
    """Where a client computes, so that the event loop stays free. One thread each."""

    drafting: Executor
    judging: Executor


@dataclass(frozen=True)
class CpuThreads:
    """torch's threads on the CPU for each of them."""

    drafting: int
    judging: int

    @classmethod
    def shared(cls, threads: int, beside: bool) -> "CpuThreads":
        """Share out threads.

        Args:
            threads: that there are.
            beside: whether both compute on the CPU, with a model large enough to use many cores.
                Small models compute on one core whatever they may use; nothing changes for them.
        """
        if not beside:
            return cls(drafting=threads, judging=threads)
        judging = max(1, threads // 2)
        return cls(drafting=max(1, threads - judging), judging=judging)

    async def give_to(self, executors: Executors) -> None:
        """Set the threads of the executors; all other threads of the process keep theirs."""
        before = torch.get_num_threads()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(executors.drafting, _set_own, self.drafting)
        await loop.run_in_executor(executors.judging, _set_own, self.judging)
        torch.set_num_threads(before)  # threads that start later take the last one that was set


ONE_EACH = CpuThreads(drafting=1, judging=1)


def _set_own(count: int) -> None:
    """Set how many threads the products of this thread take."""
    torch.get_num_threads()  # a thread's first call takes over the process's number
    torch.set_num_threads(count)
