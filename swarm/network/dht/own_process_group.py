"""Start a program in a session of its own that ends with its parent:
``python own_session.py PARENT PROGRAM ...``.

Signals that a terminal, a shell or systemd sends to the whole process group of the parent then
reach the parent alone. This file runs as a program, before ours is imported: it needs the standard
library only, and no site-packages.
"""

import contextlib
import os
import signal
import sys

CANNOT_RUN = 127  # what shells say of a program that is not there
_PR_SET_PDEATHSIG = 1  # prctl(2)


def in_own_session(program: list[str]) -> list[str]:
    """The command line that runs `program` (an absolute path, arguments) as a child of this
    process, by `main`."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *program]


def main(parent: int, program: list[str]) -> int:
    """Become `program`, unless the process `parent` has ended.

    Returns only where that is not possible.
    """
    os.setsid()
    _end_with_parent()
    if os.getppid() != parent:  # it ended before it was told to take us along
        return CANNOT_RUN
    try:
        os.execv(program[0], program)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", flush=True)
    return CANNOT_RUN


def _end_with_parent() -> None:
    """Linux ends the program when the thread that started it ends.

    Elsewhere it has to notice a closed connection.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
