"""Frames of all sessions wait here for the one compute thread; what waits together is computed together."""

import asyncio
import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from peers.span import Span, Work

MAX_BATCH_TOKENS = 512  # two full frames: a longer batch would keep single tokens of others waiting


@dataclass(frozen=True)
class Computed:
    """The output ``[tokens, hidden]`` of one frame, on the CPU, and how long its batch was on the device."""

    output: Tensor
    compute_ms: float


@dataclass(frozen=True, eq=False)
class _Job:
    work: Work
    layers: tuple[int, int]
    done: "asyncio.Future[Computed]"

    @property
    def tokens(self) -> int:
        return self.work.inputs.shape[0]


class Scheduler:
    """Owns the compute thread. `run` is its life, `compute` is called by any number of sessions."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._waiting: deque[_Job] = deque()  # bounded: a session waits for one job at most, and takes it with it
        self._computing: list[_Job] = []
        self._arrived = asyncio.Event()
        self._over = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    async def compute(self, work: Work, layers: tuple[int, int]) -> Computed:
        """Run ``work`` through layers ``[first, last)``; whatever the computation raises is raised here."""
        if self._over:
            raise RuntimeError("the compute thread has ended")
        job = _Job(work, layers, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        try:
            return await job.done
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is being computed already
                self._waiting.remove(job)
            raise

    async def run(self) -> None:
        """Compute batch after batch until cancelled; who still waits then is told by an exception."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                self._computing = self._take()
                if self._computing:
                    await loop.run_in_executor(self._thread, self._forward, self._computing, loop)
        finally:
            self._over = True
            for job in (*self._computing, *self._waiting):
                _settle(job.done, RuntimeError("the compute thread has ended"))
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Job]:
        """The jobs at the head of the queue that fit one forward pass: same layers, bounded tokens."""
        batch: list[_Job] = []
        tokens = 0
        while self._waiting:
            job = self._waiting[0]
            tokens += job.tokens
            if batch and (job.layers != batch[0].layers or tokens > MAX_BATCH_TOKENS):
                return batch
            batch.append(self._waiting.popleft())
        self._arrived.clear()
        return batch

    def _forward(self, batch: list[_Job], loop: asyncio.AbstractEventLoop) -> None:
        """In the compute thread. A failing batch is tried job by job, so that nobody fails for another's sake."""
        started = time.perf_counter()
        try:
            for job in batch:
                job.work.cache.truncate(job.work.start)
            outputs = self.span.forward([job.work for job in batch], *batch[0].layers)
            # Here, because it waits for the device: the event loop must not, and before this nothing is measured.
            outputs = [output.cpu() for output in outputs]
        except Exception as error:  # any failure of the model belongs to the sessions that asked for it
            if len(batch) > 1:
                for job in batch:
                    self._forward([job], loop)
                return
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
