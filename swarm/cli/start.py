"""The start of the console script ``swarm``: it handles signals first, and then imports the rest.

The imports of a command take a fifth of a second, and seconds on a busy machine.
"""

import os
import signal
import sys
from types import FrameType

EXIT_BASE = 128  # as in `swarm.terminal.signals`, whose own imports take too long here


def main() -> None:
    """Run ``swarm``."""
    end_on_signals()
    from swarm.cli.main import main

    main()


def end_on_signals() -> None:
    """End the program at once on a signal to stop, with one word and the signal's exit code.

    Nothing needs an orderly end yet; `swarm.terminal.signals` takes over before anything does. A
    signal that the program was started to ignore stays ignored.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    """End without an exception, which importers and finalizers would print or drop."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()  # a signal after the command: its last output may be buffered
        os.write(2, b"\nstopped\n")  # below the ^C that terminals show, on a line of its own
    except (OSError, RuntimeError):  # the terminal was closed, or stdout was being written
        pass
    os._exit(EXIT_BASE + number)
