"""Signals that ask a program to stop: it ends in order, with the exit code that shells use for it.

A signal that a program was started to ignore stays ignored: `nohup` does that to SIGHUP, and shells
do it to SIGINT for background jobs of a script.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
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
EXIT_BASE = 128  # shells report 128 + the number of the signal that ended a program
WAKING_BYTES = 64  # one for each signal
AGAIN_S = 0.05  # until a signal is raised again that reached code which cannot raise

T = TypeVar("T")
log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop. Libraries clean up as they do at Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stopped_by(error: BaseException) -> int | None:
    """Return the signal that caused an error, directly or through its causes; None without one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Stopped):
            return cause.number
        cause = cause.__cause__ or cause.__context__
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def stop_signals() -> tuple[Signals, ...]:
    """Return the signals that stop this program: those that it was not started to ignore."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, raise `Stopped` in the main thread at a signal to stop."""
    if threading.current_thread() is not threading.main_thread():  # Python has no handlers here
        yield
        return
    hook = sys.unraisablehook
    with _handlers(stop_signals(), _raise_stopped):
        sys.unraisablehook = _raise_again_later
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextlib.contextmanager
def on_signals(numbers: Sequence[Signals], act: Callable[[Signals], None]) -> Iterator[None]:
    """Within the block, let the running event loop call `act` for these signals, and only that."""
    loop = asyncio.get_running_loop()

    def schedule(number: int, _: FrameType | None) -> None:
        _leave_closed_terminal(number)
        loop.call_soon_threadsafe(act, Signals(number))

    with _woken_by_signals(loop), _handlers(numbers, schedule):
        yield


def end_at_once_from_now_on() -> None:
    """Restore the default handlers, so that the next signal ends the process at once."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_DFL)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own, and return its result.

    The first signal cancels ``work``, which then ends in order; a second one ends the process.

    Raises:
        Stopped: if a signal ended it.
    """
    received: list[Signals] = []

    async def stoppable_work() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: Signals) -> None:
            received.append(number)
            end_at_once_from_now_on()
            task.cancel()

        with on_signals(stop_signals(), stop):
            return await work

    try:
        return asyncio.run(stoppable_work())
    except (Exception, asyncio.CancelledError):
        if not received:
            raise
        log.debug("how it ended", exc_info=True)
        raise Stopped(received[0]) from None


@contextlib.contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Within the block every signal ends the loop's wait for events.

    Python calls handlers between two instructions of the main thread. A signal that arrives in
    another thread, or just before the loop begins to wait, would be handled after the next event.
    """
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    loop.add_reader(reader, reader.recv, WAKING_BYTES)
    former = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        loop.remove_reader(reader)
        reader.close()
        writer.close()


@contextlib.contextmanager
def _handlers(
    numbers: Sequence[Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) == handler:  # unless the next signal ends the process
                signal.signal(number, signal.SIG_DFL if former is None else former)


def _raise_stopped(number: int, _: FrameType | None) -> None:
    _leave_closed_terminal(number)
    end_at_once_from_now_on()
    raise Stopped(number)


def _raise_again_later(fault: "sys.UnraisableHookArgs") -> None:
    """Raise `Stopped` again if Python dropped it in a finalizer, of which imports have many."""
    if isinstance(fault.exc_value, Stopped):
        signal.signal(fault.exc_value.number, _raise_stopped)
        threading.Timer(AGAIN_S, os.kill, (os.getpid(), fault.exc_value.number)).start()
    else:
        sys.__unraisablehook__(fault)


def _leave_closed_terminal(number: int) -> None:
    """Replace a closed terminal by /dev/null, since writing to it would fail."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
            # not a file, a pipe, or a terminal that is still open
            if is_device and not os.isatty(descriptor):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)
                os.close(null)
