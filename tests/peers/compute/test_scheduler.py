"""One compute thread for many sessions: around a real span, and, for its order, around one that
only takes note."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.loopback import WatchedSpan, eventually, soon, tiny_checkpoint
from peers.compute.scheduler import MAX_BATCH_TOKENS, MAX_DECODE_TOKENS, Computed, Scheduler
from swarm.model.cache import KVCache
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.util.tasks import end
from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import Placement

FIRST, LAST = 0, 2


@dataclass
class Given:
    """A job that is known from the beginning."""

    work: Work
    layers: tuple[int, int] = (FIRST, LAST)
    begun: bool = False

    @property
    def tokens(self) -> int:
        return 0 if self.begun else len(self.work.inputs)

    def begin(self) -> Work:
        self.begun = True
        return self.work


@pytest.fixture(scope="module")
def span(tmp_path_factory: pytest.TempPathFactory) -> Span:
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("model")
        patch.setenv("SWARM_CACHE", str(folder / "cache"))
        return Span.load(tiny_checkpoint(folder), FIRST, LAST)


@pytest.fixture
def watched(span: Span) -> WatchedSpan:
    return WatchedSpan(span)


@pytest.fixture
async def scheduler(watched: WatchedSpan) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(watched)  # type: ignore[arg-type]
    running = asyncio.create_task(scheduler.run())
    yield scheduler
    watched.go_on.set()
    await end(running)


def work(span: Span, *tokens: int, last: int = LAST) -> Work:
    return Work.behind(span.new_cache(FIRST, last), torch.tensor(tokens))


def alone(span: Span, *tokens: int) -> torch.Tensor:
    return span.forward([work(span, *tokens)])[0]


async def hold(scheduler: Scheduler, watched: WatchedSpan) -> "asyncio.Task[Computed | None]":
    """Occupy the compute thread until `go_on` is set."""
    watched.go_on.clear()
    busy = asyncio.create_task(scheduler.compute(Given(work(watched.span, 1))))
    await eventually(watched.entered.is_set)
    return busy


async def wait(scheduler: Scheduler, *jobs: Given) -> "list[asyncio.Task[Computed | None]]":
    """Let jobs wait, in this order."""
    waiting = len(scheduler._waiting) + len(jobs)
    tasks = [asyncio.create_task(scheduler.compute(job)) for job in jobs]
    await eventually(lambda: len(scheduler._waiting) == waiting)
    return tasks


async def test_what_waits_together_is_computed_together(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    waiting = await wait(scheduler, *(Given(work(watched.span, n, n + 1)) for n in (3, 5, 7)))
    watched.go_on.set()
    computed = await soon(asyncio.gather(*waiting))
    await soon(busy)
    assert watched.sizes == [1, 3]
    for n, result in zip((3, 5, 7), computed, strict=True):
        torch.testing.assert_close(
            result.output, alone(watched.span, n, n + 1), rtol=1e-4, atol=1e-4
        )
        assert result.compute_ms > 0


async def test_a_batch_has_one_chunk_of_a_prompt_and_decoding_does_not_wait_for_the_others(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    chunk = [3] * MAX_FRAME_TOKENS
    prompts = [Given(work(watched.span, *chunk)) for _ in range(2)]
    waiting = await wait(
        scheduler, *prompts, Given(work(watched.span, 3)), Given(work(watched.span, 4))
    )
    watched.go_on.set()
    await soon(asyncio.gather(busy, *waiting))
    assert watched.sizes == [1, 3, 1]


async def test_a_batch_is_bounded(scheduler: Scheduler, watched: WatchedSpan) -> None:
    busy = await hold(scheduler, watched)
    fit = MAX_BATCH_TOKENS // MAX_DECODE_TOKENS
    waiting = await wait(
        scheduler, *(Given(work(watched.span, *[3] * MAX_DECODE_TOKENS)) for _ in range(fit + 1))
    )
    watched.go_on.set()
    await soon(asyncio.gather(busy, *waiting))
    assert watched.sizes == [1, fit, 1]


async def test_a_batch_is_of_the_same_layers_and_whoever_waits_longest_chooses_them(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    jobs = [
        Given(work(watched.span, 3, last=last), (FIRST, last)) for last in (1, LAST, 1, LAST, LAST)
    ]
    waiting = await wait(scheduler, *jobs)
    watched.go_on.set()
    await soon(asyncio.gather(busy, *waiting))
    assert watched.sizes == [1, 2, 3]


async def test_the_time_until_the_turn_comes_is_told(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    (waiting,) = await wait(scheduler, Given(work(watched.span, 3)))
    await asyncio.sleep(0.5)  # which no tiny span computes for, however busy the machine is
    watched.go_on.set()
    first, second = await soon(asyncio.gather(busy, waiting))
    assert first.queue_ms < first.compute_ms
    assert second.queue_ms >= 500 > second.compute_ms


async def test_a_job_that_has_nothing_to_do_any_more_is_let_go(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    jobs = [Given(work(watched.span, 3)), Given(work(watched.span, 4))]
    waiting = await wait(scheduler, *jobs)
    jobs[0].begun = True
    watched.go_on.set()
    _, gone, computed = await soon(asyncio.gather(busy, *waiting))
    assert gone is None
    assert computed is not None
    assert watched.sizes == [1, 1]
    only = Given(work(watched.span, 5), begun=True)
    assert await soon(scheduler.compute(only)) is None


async def test_a_job_that_fails_to_begin_fails_alone(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    class Broken(Given):
        def begin(self) -> Work:
            raise ValueError("no place for it")

    busy = await hold(scheduler, watched)
    waiting = await wait(scheduler, Broken(work(watched.span, 3)), Given(work(watched.span, 4)))
    watched.go_on.set()
    _, failed, computed = await soon(asyncio.gather(busy, *waiting, return_exceptions=True))
    assert str(failed) == "no place for it"
    assert isinstance(computed, Computed)


async def test_one_failing_job_does_not_fail_its_neighbours(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    # five rows are not there
    gap = Work(watched.span.new_cache(), torch.tensor([3]), Placement(5, (), (5,), 5, None))
    good = [work(watched.span, 3, 4), work(watched.span, 5, 6)]
    jobs = await wait(scheduler, Given(good[0]), Given(gap), Given(good[1]))
    watched.go_on.set()
    first, failed, second = await soon(asyncio.gather(*jobs, return_exceptions=True))
    await soon(busy)
    assert "starts at row 5" in str(failed)
    torch.testing.assert_close(first.output, alone(watched.span, 3, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.output, alone(watched.span, 5, 6), rtol=1e-4, atol=1e-4)


async def test_a_cancelled_job_leaves_the_queue_with_its_memory(
    scheduler: Scheduler, watched: WatchedSpan
) -> None:
    busy = await hold(scheduler, watched)
    (waiting,) = await wait(scheduler, Given(work(watched.span, 3)))
    await end(waiting)
    assert not scheduler._waiting
    await end(busy)  # this one is in the thread already
    watched.go_on.set()
    after = await soon(scheduler.compute(Given(work(watched.span, 3))))
    assert after.output.shape[0] == 1
    assert watched.sizes == [1, 1]


async def test_steps_are_taken_between_batches(
    scheduler: Scheduler, watched: WatchedSpan, span: Span
) -> None:
    """What is computed beside them waits for one step, not for all."""
    taken = threading.Event()

    def steps() -> Iterator[None]:
        while not scheduler.batches:
            taken.set()
            yield

    taking = asyncio.create_task(scheduler.take_steps(steps()))
    await eventually(taken.is_set)
    assert await soon(scheduler.compute(Given(work(span, 1, 2)))) is not None
    await soon(taking)


async def test_a_step_that_fails_fails_alone(scheduler: Scheduler, span: Span) -> None:
    def steps() -> Iterator[None]:
        yield
        raise MemoryError("no room for a copy")

    with pytest.raises(MemoryError):
        await soon(scheduler.take_steps(steps()))
    assert await soon(scheduler.compute(Given(work(span, 1)))) is not None


async def test_nobody_waits_for_a_scheduler_that_has_ended(watched: WatchedSpan) -> None:
    scheduler = Scheduler(watched)  # type: ignore[arg-type]
    running = asyncio.create_task(scheduler.run())
    busy = await hold(scheduler, watched)
    (waiting,) = await wait(scheduler, Given(work(watched.span, 3)))
    await end(running)
    watched.go_on.set()
    for job in (busy, waiting):
        with pytest.raises(RuntimeError, match="has ended"):
            await soon(job)
    with pytest.raises(RuntimeError, match="has ended"):
        await scheduler.compute(Given(work(watched.span, 3)))


class Noting:
    """A span that computes nothing."""

    def __init__(self) -> None:
        self.batches: list[tuple[tuple[int, int], list[int]]] = []
        self.begun = 0

    def forward(self, batch: Sequence[Work], first: int, last: int) -> list[torch.Tensor]:
        self.batches.append(((first, last), [len(work.inputs) for work in batch]))
        return [work.inputs for work in batch]


@dataclass(eq=False)
class Client:
    """A session that asks for turn after turn."""

    noting: Noting
    layers: tuple[int, int]
    sizes: list[int]
    done: int = 0
    latest: int = 0  # the batch in which its turn must have come

    @property
    def tokens(self) -> int:
        return self.sizes[self.done]

    def begin(self) -> Work:
        assert len(self.noting.batches) <= self.latest
        self.noting.begun = len(self.noting.batches) + 1
        return Work.behind(KVCache(0, 1), torch.full((self.tokens,), self.done))

    async def live(self, scheduler: Scheduler) -> None:
        while self.done < len(self.sizes):
            self.latest = self.noting.begun + len(scheduler._waiting)
            computed = await scheduler.compute(self)
            assert computed is not None
            assert set(computed.output.tolist()) == {self.done}
            self.done += 1


CLIENTS = st.lists(
    st.tuples(
        st.sampled_from([(0, 2), (0, 1), (1, 2)]),
        st.lists(
            st.sampled_from([1, 9, MAX_DECODE_TOKENS, MAX_FRAME_TOKENS]), min_size=1, max_size=6
        ),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=100, deadline=None)
@given(CLIENTS)
def test_nobody_starves_and_batches_are_as_they_should_be(
    clients: list[tuple[tuple[int, int], list[int]]],
) -> None:
    noting = Noting()

    async def run() -> None:
        scheduler = Scheduler(noting)  # type: ignore[arg-type]
        running = asyncio.create_task(scheduler.run())
        lives = [Client(noting, layers, sizes) for layers, sizes in clients]
        await soon(asyncio.gather(*(client.live(scheduler) for client in lives)))
        await end(running)

    asyncio.run(run())
    computed = [(layers, size) for layers, sizes in noting.batches for size in sizes]
    assert sorted(computed) == sorted((layers, size) for layers, sizes in clients for size in sizes)
    for _, sizes in noting.batches:
        assert sum(sizes) <= MAX_BATCH_TOKENS
        assert sum(size > MAX_DECODE_TOKENS for size in sizes) <= 1
