"""Work in several processes, or in this one if one is enough."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_workers(
    workers: int,
    start: Callable[..., object],
    given: tuple[Any, ...],
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
) -> Iterator[Result]:
    """Yield the result of every job, in their order.

    A single worker is this process: another one would spend seconds on importing torch again.

    Args:
        start: called with ``given`` in each worker, before its first job.
        work: called with each job in one of the workers; what it raises is raised here.
    """
    # Set before the workers start: each has one core, which several threads would only contend for.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if workers == 1:
        start(*given)
        yield from map(work, jobs)
        return
    # A forked torch may wait for threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, start, given) as pool:
        yield from pool.map(work, jobs, chunksize=1)
