"""Signals that ask a program to end.

It ends in order, and its exit code tells the signal, as shells tell it.

A signal that a program was started to ignore stays ignored: `nohup` does that to SIGHUP, and shells
do it to SIGINT for jobs in the background of a script.
"""

import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from signal import Signals
from types import FrameType
from typing import Any, TypeVar

ENDING = tuple(
    Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
EXIT_BASE = 128  # a shell says 128 + the number of the signal that ended a program
AGAIN_S = 0.05  # until a signal is told again that reached code which cannot raise

T = TypeVar("T")
log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end. Libraries tidy up as they do at Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stopped_by(error: BaseException) -> int | None:
    """The signal that an error comes from, be it by way of what failed while it was handled; None
    if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Stopped):
            return cause.number
        cause = cause.__cause__ or cause.__context__
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def heeded() -> tuple[Signals, ...]:
    """The signals that ask this program to end, without those that it was started to ignore."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block every signal that asks to end raises `Stopped` in the main thread, wherever
    it is."""
    # signals are none of its business
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    with _handlers(heeded(), _raise_stopped):
        sys.unraisablehook = _raise_again_later
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextlib.contextmanager
def on_signals(numbers: Sequence[Signals], act: Callable[[Signals], None]) -> Iterator[None]:
    """Within the block the running event loop calls `act` for these signals, in place of what they
    did before."""
    loop = asyncio.get_running_loop()

    def tell(number: int, _: FrameType | None) -> None:
        _leave_closed_terminal(number)
        loop.call_soon_threadsafe(act, Signals(number))

    with _handlers(numbers, tell):
        yield


def end_at_once_from_now_on() -> None:
    """The next signal ends the process as it would without us."""
    for number in heeded():
        signal.signal(number, signal.SIG_DFL)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end.

    The first signal cancels `work`, which then ends in order; a second one ends it at once.

    Raises:
        Stopped: if a signal ended it.
    """
    told: list[Signals] = []

    async def life() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: Signals) -> None:
            told.append(number)
            end_at_once_from_now_on()
            task.cancel()

        with on_signals(heeded(), stop):
            return await work

    try:
        return asyncio.run(life())
    except (Exception, asyncio.CancelledError):
        if not told:
            raise
        log.debug("how it ended", exc_info=True)
        raise Stopped(told[0]) from None


@contextlib.contextmanager
def _handlers(
    numbers: Sequence[Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) == handler:  # else the next is to end the process
                signal.signal(number, signal.SIG_DFL if former is None else former)


def _raise_stopped(number: int, _: FrameType | None) -> None:
    _leave_closed_terminal(number)
    end_at_once_from_now_on()
    raise Stopped(number)


def _raise_again_later(fault: "sys.UnraisableHookArgs") -> None:
    """In a finalizer, of which imports have many, Python can only drop what is raised."""
    if isinstance(fault.exc_value, Stopped):
        signal.signal(fault.exc_value.number, _raise_stopped)
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), fault.exc_value.number)).start()
    else:
        sys.__unraisablehook__(fault)


def _leave_closed_terminal(number: int) -> None:
    """A terminal that was closed takes no last words, and to write them would be an error."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            # else it is a file, a pipe, or a terminal that is still there
            if is_device and not os.isatty(descriptor):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)
                os.close(null)
