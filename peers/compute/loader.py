"""Layers into memory, in a thread, with progress, and how fast they compute here."""

import asyncio
import threading
from collections.abc import Callable

import torch

from peers.compute.memory import Room
from peers.compute.throughput import measure, tune_threads
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span

Progress = Callable[[int, int], None]


class _Stopped(Exception):
    """Nobody waits for the layers any more."""


class Loader:
    """Loads layers of one model on one device, one span after the other.

    Args:
        threads: of the CPU; None for as many as measure fastest with the first span.
        progress: called with (bytes done, bytes in all) while weights are loaded.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        room: Room,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._checkpoint, self._dtype, self._room = checkpoint, dtype, room
        self._threads, self._progress = threads, progress
        self._tuned = False

    async def load(self, first: int, last: int) -> Span:
        """Whoever is cancelled here leaves a thread that ends at the next tensor.

        Raises:
            DoesNotFit: if memory runs out all the same; SpanError and UnsupportedModel.
        """
        cancelled = threading.Event()

        def report(done_bytes: int, total_bytes: int) -> None:
            if cancelled.is_set():
                raise _Stopped
            if self._progress is not None:
                self._progress(done_bytes, total_bytes)

        def load() -> Span:
            try:
                return Span.load(
                    self._checkpoint,
                    first,
                    last,
                    dtype=self._dtype,
                    device=self._room.memory.device,
                    progress=report,
                )
            except (torch.OutOfMemoryError, MemoryError):  # others took it meanwhile
                raise self._room.ran_out((first, last)) from None

        try:
            return await asyncio.get_running_loop().run_in_executor(None, load)
        finally:
            cancelled.set()

    async def measure(self, span: Span) -> float:
        """Tokens per second of the span, with the CPU threads that were asked for or are best."""
        return await asyncio.get_running_loop().run_in_executor(None, self._measure, span)

    def _measure(self, span: Span) -> float:
        if self._tuned:
            return measure(span)
        self._tuned = True
        if self._room.memory.device.type == "cpu" and not self._threads:
            return tune_threads(span)
        if self._threads:
            torch.set_num_threads(self._threads)
        return measure(span)
