"""What a command waits for, shown to whoever watches: on standard error, in a terminal only, gone
when it is over."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def activity(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A function to call with what is waited for now; nothing ("") takes the line away."""
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
    """Show ``what`` meanwhile."""
    with activity(quiet) as waiting_for:
        waiting_for(what)
        yield
