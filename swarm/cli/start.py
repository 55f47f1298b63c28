"""How the console script ``swarm`` begins: it heeds signals first, and imports the rest after that.

The imports of a command take a fifth of a second, and seconds on a busy machine.
"""

import os
import signal
import sys
from types import FrameType

EXIT_BASE = 128  # of `swarm.terminal.signals`, whose own imports come too late


def main() -> None:
    """Run ``swarm``."""
    heed_signals()
    from swarm.cli.main import main

    main()


def heed_signals() -> None:
    """From now on a signal that asks to end does so at once, with one word and the signal's exit
    code.

    Nothing has begun yet that would have to end in order; `swarm.terminal.signals` takes over once
    something may. A signal that the program was started to ignore stays ignored.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    """End without an exception: importers and finalizers would print or drop it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()  # after the command, where there may be something to say
        os.write(2, b"\nstopped\n")  # below the ^C that terminals show; click begins a line, too
    except (OSError, RuntimeError):  # the terminal was closed; the stream was being written
        pass
    os._exit(EXIT_BASE + number)
