"""A progress bar on standard error, only in a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

ShowProgress = Callable[[str, float, str], None]
"""Called with what is being done, how much of it is done (0 to 1), and figures of it."""


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[ShowProgress]:
    """Yield a function that shows how far a command is; it does nothing without a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, share, figures: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, object] = {}

        def show(what: str, share: float, figures: str) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=1.0, figures="")
            shown.update(tasks[what], completed=share, figures=figures)  # type: ignore[arg-type]

        yield show
