"""A status line that shows what a command waits for: on standard error, only in a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def activity(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what the command waits for; an empty string clears the line."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    status = Console(stderr=True).status("")

    def waiting_for(what: str) -> None:
        if what:
            status.update(f"{what} ...")
            status.start()
        else:
            status.stop()

    try:
        yield waiting_for
    finally:
        status.stop()


@contextlib.contextmanager
def busy(what: str, quiet: bool = False) -> Iterator[None]:
    """Show ``what`` within the block."""
    with activity(quiet) as waiting_for:
        waiting_for(what)
        yield
