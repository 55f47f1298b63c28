"""Loads layers into memory, in a thread, and measures how fast they compute here."""

import asyncio
import logging
import threading
from collections.abc import Callable

import torch

from peers.compute.memory import DoesNotFit, MemoryBudget
from peers.compute.scripted import ScriptedHead, ScriptedSpan
from peers.compute.throughput import measure, tune_threads
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.partial import ReportProgress
from swarm.model.span import Span

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The load was cancelled."""


class Loader:
    """Loads layers of one model on one device, one span after the other.

    Args:
        room: for the layers; it names the device.
        threads: of the CPU; None for as many as measure fastest with the first span.
        progress: called with (bytes done, bytes in all) while weights are loaded.
        load: what loads a span; `Span.load` but for scripted ones.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        room: MemoryBudget,
        threads: int | None,
        progress: ReportProgress | None,
        load: Callable[..., Span] = Span.load,
    ) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._room = room
        self._threads = threads
        self._progress = progress
        self._load_span = load
        self._tuned = False

    async def load(self, first: int, last: int) -> Span:
        """Load the layers ``[first, last)``.

        If this is cancelled, the thread that loads ends at the next tensor.

        Raises:
            DoesNotFit: if memory runs out all the same.
            SpanError, UnsupportedModel: if the model cannot be cut there.
        """
        cancelled = threading.Event()

        def report(done_bytes: int, total_bytes: int) -> None:
            if cancelled.is_set():
                raise _Stopped
            if self._progress is not None:
                self._progress(done_bytes, total_bytes)

        def load() -> Span:
            try:
                return self._load_span(
                    self._checkpoint,
                    first,
                    last,
                    dtype=self._dtype,
                    device=self._room.memory.device,
                    progress=report,
                )
            except (torch.OutOfMemoryError, MemoryError):  # other programs took it meanwhile
                raise self._room.ran_out((first, last)) from None

        try:
            return await asyncio.get_running_loop().run_in_executor(None, load)
        finally:
            cancelled.set()

    async def load_head(self, span: Span) -> Head | ScriptedHead | None:
        """Load final norm and LM head, in float32, if they are held beside this span.

        Raises:
            DoesNotFit: if memory runs out all the same, and the operator asked for the head.
        """
        if not self._room.takes_head((span.first, span.last)):
            return None

        def load() -> Head | ScriptedHead:
            if isinstance(span, ScriptedSpan):
                return span.head
            try:
                return Head.load(self._checkpoint, device=self._room.memory.device)
            except (torch.OutOfMemoryError, MemoryError):  # other programs took it meanwhile
                raise self._room.ran_out((span.first, span.last)) from None

        try:
            return await asyncio.get_running_loop().run_in_executor(None, load)
        except DoesNotFit:
            if self._room.head:
                raise
            log.warning("there is no memory left for the model's head; serving without it")
            return None

    async def measure(self, span: Span) -> float:
        """Return the tokens per second of a span, with the requested or the fastest CPU threads."""
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
