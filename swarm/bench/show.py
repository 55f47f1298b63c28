"""Figures as tables: for a terminal and for a document."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from swarm.bench.figures import Figures

COLUMNS = (
    *("", "speedup", "of bound", "tok/s", "loop ms", "waits", "frames", "bytes up", "down", "work", "in flight"),
    *("alpha", "branches", "identical"),
)
EXPLAINED = (
    "per token: waits for a whole loop, frames and bytes of the client, work (positions that the peers computed), "
    "tokens from branches. 'of bound': of the most that speculation could reach with this draft."
)


def cells(row: Figures) -> tuple[str, ...]:
    """One row, as text."""
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


def show_table(rows: Sequence[Figures], title: str = "") -> None:
    """A table for a terminal, as wide as it needs to be."""
    table = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    console = Console()
    console = Console(width=max(console.width, 150))
    console.print(table)
    console.print(EXPLAINED)


def markdown(rows: Sequence[Figures]) -> str:
    """The same table for a document."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
