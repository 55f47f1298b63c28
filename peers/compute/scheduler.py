"""Queues the work of all sessions for the one compute thread, and batches what waits."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from peers.counters import Counters
from swarm.decoding.candidates import choose_candidates, whole_row
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.util.averages import FadingMean
from swarm.wire.candidates import Candidates, HeadTerms

MAX_BATCH_TOKENS = 512  # two full frames: a longer batch would keep single tokens of others waiting
LATELY_S = 30.0  # an older waiting time says nothing any more
# anything longer is a chunk of a prompt: it may hold up others, so a batch takes only one
MAX_DECODE_TOKENS = 64

T = TypeVar("T")


class AnyHead(Protocol):
    """The part of a `Head` that candidates come from."""

    def logits(self, hidden: Tensor) -> Tensor: ...


class ComputeJob(Protocol):
    """Work of one session.

    Its content is fixed only when its turn comes: everything that arrived by then is part of it,
    and nothing that has become stale.
    """

    @property
    def layers(self) -> tuple[int, int]:
        """The layers ``[first, last)``."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens `begin` would return; 0 if there is nothing to do any more."""
        ...

    def begin(self) -> Work:
        """Return the work; called at the job's turn, if it has tokens."""
        ...


@dataclass(frozen=True)
class Computed:
    """The result of one job.

    Attributes:
        output: ``[tokens, hidden]``, on the CPU.
        compute_ms: how long its batch was on the device.
        queue_ms: how long it waited for batches of other sessions.
    """

    output: Tensor
    compute_ms: float
    queue_ms: float


@dataclass(frozen=True, eq=False)
class _QueuedJob:
    """A job that waits; ``since`` is on the scheduler's clock."""

    job: ComputeJob
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
class _StartedJob:
    """A job whose turn has come."""

    turn: _QueuedJob
    work: Work
    queue_ms: float


class Scheduler:
    """Owns the compute thread: `run` computes, `compute` is called by any number of sessions.

    Args:
        head: the model's head, if this peer holds it and the span ends the model.
        clock: seconds, monotonic.

    Attributes:
        batches: how many were computed.
    """

    def __init__(
        self,
        span: Span,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.perf_counter,
        head: AnyHead | None = None,
    ) -> None:
        self.span = span
        self.head = head
        self.batches = 0
        self._counters = counters or Counters()
        self._clock = clock
        # the longest waiting first; bounded: a session has one turn at a time
        self._waiting: deque[_QueuedJob] = deque()
        self._computing: list[_StartedJob] = []
        self._arrived = asyncio.Event()
        self._over = False
        self._queue_ms = FadingMean()
        self._served_at = float("-inf")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    @property
    def queue_ms(self) -> float:
        """How long turns have lately waited for others; 0 if there was none for a while."""
        lately = self._clock() - self._served_at < LATELY_S
        return self._queue_ms.value or 0.0 if lately else 0.0

    async def compute(self, job: ComputeJob) -> Computed | None:
        """Wait for the job's turn and compute what it has by then.

        Returns None if it has nothing to do any more. A session waits for one turn at a time.

        Raises what `begin` or the computation raises, and RuntimeError after `run` has ended.
        """
        if self._over:
            raise RuntimeError("the compute thread has ended")
        turn = _QueuedJob(job, self._clock(), asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._arrived.set()
        try:
            return await turn.done
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is being computed already
                self._waiting.remove(turn)
            raise

    async def candidates(
        self, hidden: Tensor, positions: Sequence[int], terms: HeadTerms
    ) -> tuple[Candidates, float]:
        """Return the candidates for what follows some tokens, and the milliseconds that took.

        Args:
            hidden: ``[n, hidden]``, the span's outputs at these tokens.
            positions: in the text, of the tokens that are predicted.
        """
        head = self.head
        assert head is not None  # a session without it has no terms

        def choose() -> Candidates:
            return choose_candidates(head.logits(hidden), positions, terms)

        return await self._in_thread(choose)

    async def all_logits(self, hidden: Tensor, terms: HeadTerms) -> Candidates:
        """Return the logits of all tokens of one prediction, from ``hidden`` ``[1, hidden]``."""
        head = self.head
        assert head is not None  # a session without it has no terms
        whole, _ = await self._in_thread(lambda: whole_row(head.logits(hidden)[0], terms))
        return whole

    async def take_steps(self, steps: Iterator[None]) -> None:
        """Take steps that use caches, each between two batches. Raises what a step raises."""
        over = False
        while not over:
            over, _ = await self._in_thread(lambda: bool(next(steps, True)))

    async def _in_thread(self, work: Callable[[], T]) -> tuple[T, float]:
        """Run work between two batches; return its result, and the milliseconds that it took."""
        if self._over:
            raise RuntimeError("the compute thread has ended")

        def timed() -> tuple[T, float]:
            started = self._clock()
            return work(), (self._clock() - started) * 1e3

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    async def run(self) -> None:
        """Compute batch after batch until cancelled; then every waiting `compute` raises."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                self._computing = self._begin(self._take())
                started = self._clock()
                self._settle(
                    await loop.run_in_executor(self._thread, self._compute, self._computing)
                )
                self._counters.compute_s += self._clock() - started
        finally:
            self._over = True
            for turn in (*(begun.turn for begun in self._computing), *self._waiting):
                turn.settle(RuntimeError("the compute thread has ended"))
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_QueuedJob]:
        """Return the next batch: all waiting jobs of one range of layers that fit.

        It takes one chunk of a prompt at most, so that decoding never waits for more than that. The
        job that waits longest is always in it. So no job starves: its turn comes after as many
        batches as there were jobs before it, or sooner.
        """
        batch: list[_QueuedJob] = []
        rest: deque[_QueuedJob] = deque()
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

    def _begin(self, batch: list[_QueuedJob]) -> list[_StartedJob]:
        """Begin all jobs of a batch; one that fails to begin raises in its `compute` alone."""
        begun = []
        now = self._clock()
        for turn in batch:
            try:
                begun.append(_StartedJob(turn, turn.job.begin(), (now - turn.since) * 1e3))
            except Exception as error:  # it concerns only the session whose job it is
                turn.settle(error)
        return begun

    def _settle(self, outcomes: list[Computed | Exception]) -> None:
        for begun, outcome in zip(self._computing, outcomes, strict=True):
            begun.turn.settle(outcome)
            self._queue_ms.add(begun.queue_ms)
            self._served_at = self._clock()
            self._counters.turns += 1
            self._counters.tokens += len(begun.work.inputs)
            self._counters.queue_s += begun.queue_ms / 1e3
        self.batches += bool(self._computing)
        self._counters.batches += bool(self._computing)
        self._computing = []  # else the caches of sessions that are over would be kept

    def _compute(self, batch: list[_StartedJob]) -> list[Computed | Exception]:
        """Compute a batch, in the compute thread.

        A batch that fails is tried job by job, so that no session fails because of another.
        """
        if not batch:  # all were cancelled, or failed to begin
            return []
        started = self._clock()
        try:
            outputs = self.span.forward([begun.work for begun in batch], *batch[0].turn.job.layers)
        # any failure of the model concerns the sessions that asked for it
        except Exception as error:
            return [error] if len(batch) == 1 else [self._compute([begun])[0] for begun in batch]
        compute_ms = (self._clock() - started) * 1e3
        return [
            Computed(output, compute_ms, begun.queue_ms)
            for begun, output in zip(batch, outputs, strict=True)
        ]
