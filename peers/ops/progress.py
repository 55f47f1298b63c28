"""A progress bar while weights are loaded, in a terminal only."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@contextlib.contextmanager
def loading_bar(quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with (bytes done, bytes in all); the bar ends when all are done."""
    console = Console(stderr=True)
    columns = (TextColumn("loading weights"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    )
    task = bar.add_task("weights", total=None)

    def update(done_bytes: int, total_bytes: int) -> None:
        if not bar.live.is_started and done_bytes < total_bytes:
            bar.start()
        bar.update(task, completed=done_bytes, total=total_bytes)
        if done_bytes >= total_bytes:
            bar.stop()

    try:
        yield update
    finally:
        bar.stop()
