"""WayFigures as tables: for a terminal and for a document."""

from collections.abc import Sequence

from rich.console import Console

from swarm.bench.figures import WayFigures
from swarm.outputs import Compute
from swarm.terminal.tables import print_table

COLUMNS = (
    "",
    "speedup",
    "of bound",
    "tok/s",
    "loop ms",
    "waits",
    "frames",
    "bytes up",
    "down",
    "work",
    "in flight",
    "alpha",
    "branches",
    "identical",
)
EXPLAINED = (
    "per token: waits for a whole loop, frames and bytes of the client, work (positions that the "
    "peers computed), tokens from branches. 'of bound': of the most that speculation could reach "
    "with this draft."
)


def cells(row: WayFigures) -> tuple[str, ...]:
    """Return one row as text."""
    low, high = row.speedup_range
    return (
        row.way,
        f"{row.speedup:.2f}x ({low:.2f} to {high:.2f})",
        "" if row.bound_share is None else f"{row.bound_share:.0%}",
        f"{row.tokens_per_second:.1f}",
        f"{row.loop_ms:.0f}",
        f"{row.waits:.2f}",
        f"{row.frames:.2f}",
        f"{row.bytes_sent:.0f}",
        f"{row.bytes_received:.0f}",
        f"{row.positions:.1f}",
        f"{row.in_flight:.1f}",
        "" if row.alpha is None else f"{row.alpha:.2f}",
        f"{row.branches:.2f}",
        {True: "yes", False: "NO", None: "-"}[row.identical],
    )


def show_table(rows: Sequence[WayFigures], title: str = "") -> None:
    """Print a table, in parts where the terminal is narrow."""
    console = Console()
    print_table(console, COLUMNS, [cells(row) for row in rows], title=title)
    console.print(EXPLAINED)


def in_words(compute: Compute) -> str:
    """Return a sentence about where the client computes."""
    judging = "The client judges by a peer's head"
    if compute.device is not None:
        judging = f"The client judges on {_with_threads(compute.device, compute.judging_threads)}"
    if compute.draft_device is None:
        return f"{judging}."
    drafting = _with_threads(compute.draft_device, compute.drafting_threads)
    return f"{judging} and drafts in {compute.draft_dtype} on {drafting}."


def _with_threads(device: str, threads: int) -> str:
    if device != "cpu":
        return device
    return f"the CPU ({threads} thread{'s' * (threads != 1)})"


def markdown(rows: Sequence[WayFigures]) -> str:
    """Return the same table for a document."""
    return markdown_table(COLUMNS, [cells(row) for row in rows])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a document."""
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
