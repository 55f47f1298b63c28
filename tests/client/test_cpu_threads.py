"""Drafting and judging share the CPU's cores, and have all of them while they are alone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from swarm.client.cpu_threads import Cores, CpuThreads, Executors

SHARED = CpuThreads(drafting=3, judging=2, alone=5, tuned=True)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
def test_large_models_never_have_more_threads_than_there_are(threads: int) -> None:
    shared = CpuThreads.shared(threads, beside=True)
    assert shared.drafting >= shared.judging >= 1
    assert shared.drafting + shared.judging == max(2, threads)
    assert shared.alone == threads
    assert CpuThreads.shared(threads, beside=False) == CpuThreads(threads, threads, threads)


@pytest.fixture
def executors() -> Iterator[Executors]:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as drafting, ThreadPoolExecutor(1) as judging:
        yield Executors(drafting, judging)
    assert torch.get_num_threads() == before  # of this thread
    torch.set_num_threads(before)  # threads that start later take the last one that was set


def test_each_has_all_cores_while_the_other_one_does_nothing(executors: Executors) -> None:
    shared = Cores(SHARED).share(executors)
    for _ in range(2):
        assert shared.drafting.submit(torch.get_num_threads).result() == SHARED.alone
        assert shared.judging.submit(torch.get_num_threads).result() == SHARED.alone


def test_judging_beside_a_draft_has_its_share_and_the_draft_gives_up_the_rest(
    executors: Executors,
) -> None:
    cores = Cores(SHARED)
    shared = cores.share(executors)
    drafts, judged = threading.Event(), threading.Event()
    seen = []

    def draft() -> None:
        seen.append(torch.get_num_threads())
        drafts.set()
        judges.wait(10)
        cores.layer()
        seen.append(torch.get_num_threads())
        judged.set()

    judges = threading.Event()

    def judge() -> int:
        judges.set()
        judged.wait(10)
        return torch.get_num_threads()

    drafting = shared.drafting.submit(draft)
    drafts.wait(10)
    assert shared.judging.submit(judge).result() == SHARED.judging
    drafting.result()
    assert seen == [SHARED.alone, SHARED.drafting]


def test_work_that_fails_gives_its_cores_back(executors: Executors) -> None:
    shared = Cores(SHARED).share(executors)
    failed = shared.judging.submit(lambda: 1 / 0)
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert shared.drafting.submit(torch.get_num_threads).result() == SHARED.alone


def test_where_nothing_is_shared_the_executors_stay_as_they_are(executors: Executors) -> None:
    assert Cores(CpuThreads.shared(4, beside=False)).share(executors) is executors


@pytest.mark.parametrize("disturbed", [False, True])
def test_drafting_has_fewer_threads_where_all_are_slower(
    executors: Executors, disturbed: bool
) -> None:
    now_s = 0.0
    cores = Cores(SHARED, lambda: now_s)
    shared = cores.share(executors)

    def draft() -> int:
        nonlocal now_s
        with cores.forward():
            now_s += 8.0 if torch.get_num_threads() == SHARED.alone else 1.0
            if disturbed:  # it was slow because it had to share the cores
                shared.judging.submit(torch.get_num_threads).result()
            return torch.get_num_threads()

    counts = [shared.drafting.submit(draft).result() for _ in range(20)]
    assert counts[0] == SHARED.alone
    assert counts[-1] == (SHARED.alone if disturbed else SHARED.drafting)
