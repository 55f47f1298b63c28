"""One compute thread for many sessions, around a real span."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import torch
from support import eventually, soon, tiny_checkpoint

from peers.scheduler import MAX_BATCH_TOKENS, Scheduler
from peers.span import Span, Work
from swarm.network.tasks import end

FIRST, LAST = 0, 2


class Watched:
    """A span that can be held in the middle of a forward, and notes what it is given."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.batches: list[int] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def forward(self, batch: Sequence[Work], first: int, last: int) -> list[torch.Tensor]:
        self.batches.append(len(batch))
        self.entered.set()
        assert self.go_on.wait(20)
        return self.span.forward(batch, first, last)

    async def hold(self, scheduler: Scheduler) -> "asyncio.Task[object]":
        """Occupy the compute thread until `go_on` is set."""
        self.go_on.clear()
        busy = asyncio.create_task(scheduler.compute(work(self.span, 1), (FIRST, LAST)))
        await eventually(self.entered.is_set)
        return busy


@pytest.fixture(scope="module")
def span(tmp_path_factory: pytest.TempPathFactory) -> Span:
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("model")
        patch.setenv("SWARM_CACHE", str(folder / "cache"))
        return Span.load(tiny_checkpoint(folder), FIRST, LAST)


@pytest.fixture
def watched(span: Span) -> Watched:
    return Watched(span)


@pytest.fixture
async def scheduler(watched: Watched) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(watched)  # type: ignore[arg-type]
    running = asyncio.create_task(scheduler.run())
    yield scheduler
    watched.go_on.set()
    await end(running)


def work(span: Span, *tokens: int, last: int = LAST) -> Work:
    return Work(span.new_cache(FIRST, last), 0, torch.tensor(tokens))


def alone(span: Span, *tokens: int) -> torch.Tensor:
    return span.forward([work(span, *tokens)])[0]


async def test_what_waits_together_is_computed_together(scheduler: Scheduler, watched: Watched) -> None:
    busy = await watched.hold(scheduler)
    waiting = [asyncio.create_task(scheduler.compute(work(watched.span, n, n + 1), (FIRST, LAST))) for n in (3, 5, 7)]
    await eventually(lambda: len(scheduler._waiting) == 3)
    watched.go_on.set()
    computed = await soon(asyncio.gather(*waiting))
    await soon(busy)
    assert watched.batches == [1, 3]
    for n, result in zip((3, 5, 7), computed, strict=True):
        torch.testing.assert_close(result.output, alone(watched.span, n, n + 1), rtol=1e-4, atol=1e-4)
        assert result.compute_ms > 0


async def test_batches_are_of_the_same_layers_and_bounded(scheduler: Scheduler, watched: Watched) -> None:
    busy = await watched.hold(scheduler)
    half = [3] * (MAX_BATCH_TOKENS // 2)
    jobs = [work(watched.span, *half), work(watched.span, *half), work(watched.span, 3)]
    waiting = [asyncio.create_task(scheduler.compute(job, (FIRST, LAST))) for job in jobs]
    await eventually(lambda: len(scheduler._waiting) == 3)
    other = asyncio.create_task(scheduler.compute(work(watched.span, 3, last=1), (FIRST, 1)))
    await eventually(lambda: len(scheduler._waiting) == 4)
    watched.go_on.set()
    await soon(asyncio.gather(busy, *waiting, other))
    assert watched.batches == [1, 2, 1, 1]


async def test_one_failing_job_does_not_fail_its_neighbours(scheduler: Scheduler, watched: Watched) -> None:
    busy = await watched.hold(scheduler)
    gap = Work(watched.span.new_cache(), 5, torch.tensor([3]))  # its cache has no five positions
    good = [work(watched.span, 3, 4), work(watched.span, 5, 6)]
    jobs = [asyncio.create_task(scheduler.compute(job, (FIRST, LAST))) for job in (good[0], gap, good[1])]
    await eventually(lambda: len(scheduler._waiting) == 3)
    watched.go_on.set()
    first, failed, second = await soon(asyncio.gather(*jobs, return_exceptions=True))
    await soon(busy)
    assert "cannot go back to 5" in str(failed)
    torch.testing.assert_close(first.output, alone(watched.span, 3, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.output, alone(watched.span, 5, 6), rtol=1e-4, atol=1e-4)


async def test_a_cancelled_job_leaves_the_queue_with_its_memory(scheduler: Scheduler, watched: Watched) -> None:
    busy = await watched.hold(scheduler)
    waiting = asyncio.create_task(scheduler.compute(work(watched.span, 3), (FIRST, LAST)))
    await eventually(lambda: len(scheduler._waiting) == 1)
    await end(waiting)
    assert not scheduler._waiting
    await end(busy)  # this one is in the thread already
    watched.go_on.set()
    after = await soon(scheduler.compute(work(watched.span, 3), (FIRST, LAST)))
    assert after.output.shape[0] == 1
    assert watched.batches == [1, 1]


async def test_a_job_may_start_over_at_an_earlier_position(scheduler: Scheduler, watched: Watched) -> None:
    cache = watched.span.new_cache()
    for start, tokens in ((0, (3, 4, 5)), (1, (6, 7))):
        computed = await soon(scheduler.compute(Work(cache, start, torch.tensor(tokens)), (FIRST, LAST)))
    torch.testing.assert_close(computed.output, alone(watched.span, 3, 6, 7)[1:], rtol=1e-4, atol=1e-4)


async def test_nobody_waits_for_a_scheduler_that_has_ended(watched: Watched) -> None:
    scheduler = Scheduler(watched)  # type: ignore[arg-type]
    running = asyncio.create_task(scheduler.run())
    busy = await watched.hold(scheduler)
    waiting = asyncio.create_task(scheduler.compute(work(watched.span, 3), (FIRST, LAST)))
    await eventually(lambda: len(scheduler._waiting) == 1)
    await end(running)
    watched.go_on.set()
    for job in (busy, waiting):
        with pytest.raises(RuntimeError, match="has ended"):
            await soon(job)
    with pytest.raises(RuntimeError, match="has ended"):
        await scheduler.compute(work(watched.span, 3), (FIRST, LAST))
