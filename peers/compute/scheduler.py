"""Sessions wait here for the one compute thread; what waits together is computed together."""

import asyncio
import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from peers.counters import Tally
from swarm.model.span import Span, Work
from swarm.util.averages import FadingMean

MAX_BATCH_TOKENS = 512  # two full frames: a longer batch would keep single tokens of others waiting
LATELY_S = 30.0
# what is longer is a chunk of a prompt: it may hold up others, so only one at a time
MAX_DECODE_TOKENS = 64


class Job(Protocol):
    """What a session wants computed.

    It is settled when its turn has come, so that all that has arrived until then is part of it, and
    nothing that has become stale.
    """

    @property
    def layers(self) -> tuple[int, int]:
        """First and last, the latter exclusive."""
        ...

    @property
    def tokens(self) -> int:
        """How many `begin` would give; 0 if there is nothing to do any more."""
        ...

    def begin(self) -> Work:
        """Called at the job's turn, if it has tokens."""
        ...


@dataclass(frozen=True)
class Computed:
    """The output ``[tokens, hidden]`` of one job, on the CPU, how long its batch was on the device,
    and how long it waited before for batches of others."""

    output: Tensor
    compute_ms: float
    queue_ms: float


@dataclass(frozen=True, eq=False)
class _Turn:
    """One place in the queue."""

    job: Job
    since: float
    done: "asyncio.Future[Computed | None]"

    def settle(self, outcome: Computed | Exception | None) -> None:
        if self.done.done():  # its session was closed meanwhile
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A turn that has come."""

    turn: _Turn
    work: Work
    queue_ms: float


class Scheduler:
    """Owns the compute thread. `run` is its life, `compute` is called by any number of sessions.

    Attributes:
        batches: how many were computed.
    """

    def __init__(self, span: Span, tally: Tally | None = None) -> None:
        self.span, self._tally = span, tally or Tally()
        # the longest first; bounded: a session has one turn at a time
        self._waiting: deque[_Turn] = deque()
        self._computing: list[_Begun] = []
        self.batches = 0
        self._arrived = asyncio.Event()
        self._over = False
        self._queue_ms, self._served_at = FadingMean(), float("-inf")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    @property
    def queue_ms(self) -> float:
        """What turns have lately waited for others; 0 if there was none for a while."""
        lately = time.perf_counter() - self._served_at < LATELY_S
        return self._queue_ms.value or 0.0 if lately else 0.0

    async def compute(self, job: Job) -> Computed | None:
        """Wait for the job's turn and compute what it has by then; None if it has nothing any more.

        A session waits for one turn at a time. Whatever `begin` or the computation raises is raised
        here.
        """
        if self._over:
            raise RuntimeError("the compute thread has ended")
        turn = _Turn(job, time.perf_counter(), asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._arrived.set()
        try:
            return await turn.done
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is being computed already
                self._waiting.remove(turn)
            raise

    async def run(self) -> None:
        """Compute batch after batch until cancelled; who still waits then is told by an
        exception."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                self._computing = self._begin(self._take())
                started = time.perf_counter()
                self._settle(
                    await loop.run_in_executor(self._thread, self._compute, self._computing)
                )
                self._tally.compute_s += time.perf_counter() - started
        finally:
            self._over = True
            for turn in (*(begun.turn for begun in self._computing), *self._waiting):
                turn.settle(RuntimeError("the compute thread has ended"))
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Turn]:
        """Whose turn it is: all of one range of layers that fit, but of chunks of prompts only one,
        so that decoding never waits for more than that.

        Whoever waits longest is always among them. So nobody starves: a turn comes at the latest
        after as many batches as there were others waiting when it was asked for.
        """
        batch: list[_Turn] = []
        rest: deque[_Turn] = deque()
        room, has_chunk = MAX_BATCH_TOKENS, False
        for turn in self._waiting:
            tokens = turn.job.tokens
            is_chunk = tokens > MAX_DECODE_TOKENS
            if not tokens:
                turn.settle(None)
            elif batch and (
                turn.job.layers != batch[0].job.layers or tokens > room or (is_chunk and has_chunk)
            ):
                rest.append(turn)
            else:
                batch.append(turn)
                room, has_chunk = room - tokens, has_chunk or is_chunk
        self._waiting = rest
        if not rest:
            self._arrived.clear()
        return batch

    def _begin(self, batch: list[_Turn]) -> list[_Begun]:
        """A job that fails to begin is told so, and left out."""
        begun = []
        now = time.perf_counter()
        for turn in batch:
            try:
                begun.append(_Begun(turn, turn.job.begin(), (now - turn.since) * 1e3))
            except Exception as error:  # it belongs to the session whose job it is
                turn.settle(error)
        return begun

    def _settle(self, outcomes: list[Computed | Exception]) -> None:
        for begun, outcome in zip(self._computing, outcomes, strict=True):
            begun.turn.settle(outcome)
            self._queue_ms.add(begun.queue_ms)
            self._served_at = time.perf_counter()
            self._tally.turns += 1
            self._tally.tokens += len(begun.work.inputs)
            self._tally.queue_s += begun.queue_ms / 1e3
        self.batches += bool(self._computing)
        self._tally.batches += bool(self._computing)
        self._computing = []  # it would keep the caches of sessions that are over

    def _compute(self, batch: list[_Begun]) -> list[Computed | Exception]:
        """In the compute thread.

        A failing batch is tried job by job, so that nobody fails for another's sake.
        """
        if not batch:  # all were cancelled, or failed to begin
            return []
        started = time.perf_counter()
        try:
            outputs = self.span.forward([begun.work for begun in batch], *batch[0].turn.job.layers)
        except (
            Exception
        ) as error:  # any failure of the model belongs to the sessions that asked for it
            return [error] if len(batch) == 1 else [self._compute([begun])[0] for begun in batch]
        compute_ms = (time.perf_counter() - started) * 1e3
        return [
            Computed(output, compute_ms, begun.queue_ms)
            for begun, output in zip(batch, outputs, strict=True)
        ]
