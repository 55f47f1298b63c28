"""Runs `swarm-peer join` and `bootstrap` until a signal, or the end of standard input."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from signal import Signals
from typing import Any

from swarm.terminal import signals
from swarm.util.tasks import end

Run = Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]


def run_until_stopped(run: Run, until_eof: bool, leave_s: float) -> None:
    """Run ``run(stop, up)`` until it is asked to end; it calls ``up()`` when its start is over.

    Before ``up()``, a signal cancels ``run``; after it, a signal sets ``stop``. Either way ``run``
    has ``leave_s`` seconds to end in order. With ``until_eof``, the end of standard input does the
    same. A second signal ends the process at once, as it would by default.

    Raises:
        Stopped: if a signal ended the start.
    """
    cancelled_by: list[Signals | None] = []  # None: the end of standard input

    async def life() -> None:
        stop, is_up = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(run(stop, is_up.set))
        stopped = asyncio.create_task(stop.wait())

        def leave(number: Signals | None = None) -> None:
            signals.end_at_once_from_now_on()
            if not is_up.is_set() and not stop.is_set():
                cancelled_by.append(number)
                work.cancel()
            stop.set()

        with signals.on_signals(signals.stop_signals(), leave):
            if until_eof:
                loop.add_reader(sys.stdin.fileno(), _on_input, loop, leave)
            try:
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait({work}, timeout=leave_s)
                if work.done() and not cancelled_by:
                    work.result()
            finally:
                await end(work, stopped)

    asyncio.run(life())
    if cancelled_by and cancelled_by[0] is not None:
        raise signals.Stopped(cancelled_by[0])


def _on_input(loop: asyncio.AbstractEventLoop, leave: Callable[[], None]) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        leave()
