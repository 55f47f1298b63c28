"""Frames of all sessions wait here for the one compute thread; what waits together is computed together."""

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from peers.span import Span, Work

MAX_BATCH_TOKENS = 512  # two full frames: a longer batch would keep single tokens of others waiting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computed:
    """The output ``[tokens, hidden]`` of one frame, and how long its batch was on the device."""

    output: Tensor
    compute_ms: float


@dataclass(frozen=True)
class _Job:
    work: Work
    layers: tuple[int, int]
    done: "asyncio.Future[Computed]" = field(compare=False)

    @property
    def tokens(self) -> int:
        return self.work.inputs.shape[0]


class Scheduler:
    """Owns the compute thread. `run` is its life, `compute` is called by any number of sessions."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._waiting: deque[_Job] = deque()  # bounded: every session waits for at most one job
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    async def compute(self, work: Work, layers: tuple[int, int]) -> Computed:
        """Run ``work`` through layers ``[first, last)``; whatever the computation raises is raised here."""
        job = _Job(work, layers, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return await job.done

    async def run(self) -> None:
        """Compute batch after batch until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                batch = self._take()
                await loop.run_in_executor(self._thread, self._forward, batch, loop)
        finally:
            for job in self._waiting:
                job.done.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Job]:
        """The jobs at the head of the queue that fit one forward pass: same layers, bounded tokens."""
        batch = [self._waiting.popleft()]
        tokens = batch[0].tokens
        while self._waiting and self._waiting[0].layers == batch[0].layers:
            tokens += self._waiting[0].tokens
            if tokens > MAX_BATCH_TOKENS:
                break
            batch.append(self._waiting.popleft())
        if not self._waiting:
            self._arrived.clear()
        return [job for job in batch if not job.done.cancelled()]

    def _forward(self, batch: list[_Job], loop: asyncio.AbstractEventLoop) -> None:
        """In the compute thread. A failing batch is tried job by job, so that nobody fails for another's sake."""
        if not batch:
            return
        started = time.perf_counter()
        try:
            for job in batch:
                job.work.cache.truncate(job.work.start)
            outputs = self.span.forward([job.work for job in batch], *batch[0].layers)
        except Exception as error:  # any failure of the model belongs to the sessions that asked for it
            if len(batch) > 1:
                for job in batch:
                    self._forward([job], loop)
                return
            log.exception("layers %s:%s failed", *batch[0].layers)
            loop.call_soon_threadsafe(_settle, batch[0].done, error)
            return
        compute_ms = (time.perf_counter() - started) * 1e3
        for job, output in zip(batch, outputs, strict=True):
            loop.call_soon_threadsafe(_settle, job.done, Computed(output, compute_ms))


def _settle(done: "asyncio.Future[Computed]", outcome: Computed | Exception) -> None:
    if done.done():  # its session was closed meanwhile
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
