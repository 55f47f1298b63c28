"""Drafting and judging share the CPU's cores, and leave the rest of the process alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from swarm.client.cpu_threads import CpuThreads, Executors


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
def test_large_models_never_have_more_threads_than_there_are(threads: int) -> None:
    shared = CpuThreads.shared(threads, beside=True)
    assert shared.drafting >= shared.judging >= 1
    assert shared.drafting + shared.judging == max(2, threads)
    assert CpuThreads.shared(threads, beside=False) == CpuThreads(threads, threads)


async def test_each_thread_gets_its_own_number_and_others_keep_theirs() -> None:
    before = torch.get_num_threads()
    with (
        ThreadPoolExecutor(1) as drafting,
        ThreadPoolExecutor(1) as judging,
        ThreadPoolExecutor(1) as other,
    ):
        await CpuThreads(drafting=3, judging=5).give_to(Executors(drafting, judging))
        loop = asyncio.get_running_loop()
        counts = [
            await loop.run_in_executor(each, torch.get_num_threads)
            for each in (drafting, judging, other)
        ]
    assert counts == [3, 5, before]
    assert torch.get_num_threads() == before
