"""An event loop whose time passes only when nothing else can happen: sleeps and timeouts cost
nothing, and every run of the same code takes the same turns."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from typing_extensions import TypeVarTuple, Unpack

TICK_S = 1e-9  # between timers that would ring at the same time

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for timers by putting its clock forward. Nothing outside may be waited for.

    Timers of the same time ring in the order in which they were set, so that messages that take
    equally long keep the order of a link. asyncio alone promises no order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._ticks = itertools.count()
        select = self._selector.select  # type: ignore[attr-defined]

        def skip(timeout: float | None) -> Any:
            assert timeout is not None, "nothing is left that could ever happen"
            self._now += max(timeout, 0.0)
            return select(0)

        self._selector.select = skip  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop.call_at`."""
        when += next(self._ticks) * TICK_S
        return super().call_at(when, callback, *args, context=context)


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end; no task may be left over."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(work)
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks are left over: {left}"
        return result
    finally:
        loop.close()
