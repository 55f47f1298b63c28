"""An evaluation as a table, for a terminal or for a document, and as a plot."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from swarm.eval.report import ReportRow
from swarm.terminal.plots import load_pyplot
from swarm.terminal.tables import print_table

COLUMNS = (
    "",
    "right",
    "right, 95 %",
    "to plain",
    "to plain, 95 %",
    "p",
    "tokens/loop",
    "kept",
    "relaxed/100",
    "nats/100",
    "log p",
    "length",
    "no stop",
)
BRIEF = ("", "right", "to plain", "to plain, 95 %", "tokens/loop", "kept", "nats/100")


def cells(row: ReportRow) -> tuple[str, ...]:
    """Return a row as text."""
    low, high = row.accuracy_interval
    worse, better = row.difference_interval
    slow, fast = row.tokens_per_loop_interval
    return (
        row.name,
        f"{row.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{100 * row.difference:+.1f}",
        f"{100 * worse:+.1f} to {100 * better:+.1f}{'' if row.non_inferior else ' !'}",
        f"{row.p_value:.2g}",
        f"{row.tokens_per_loop:.2f} ({slow:.2f} to {fast:.2f})",
        "-" if row.acceptance is None else f"{row.acceptance:.1%}",
        f"{row.relaxed_per_100:.1f}",
        f"{row.deficit_per_100:.2f}",
        "-" if row.mean_log_p is None else f"{row.mean_log_p:.3f}",
        f"{row.length_drift:+.1%}",
        f"{row.no_stop:.1%}",
    )


def show_table(rows: Sequence[ReportRow], margin: float) -> None:
    """Print the most important figures to a terminal; the other formats have all."""
    chosen = [COLUMNS.index(column) for column in BRIEF]
    brief = [[cells(row)[index] for index in chosen] for row in rows]
    console = Console()
    print_table(console, BRIEF, brief)
    loss = f"a loss of more than {100 * margin:g} points"
    console.print(f"'to plain' in points; ! where {loss} is not ruled out.")


def markdown(rows: Sequence[ReportRow]) -> str:
    """Return a table of all figures for a document."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: Sequence[ReportRow], file: Path) -> None:
    """Plot accuracy over tokens per loop, with intervals, as PNG or SVG.

    Raises:
        MissingExtra: without matplotlib.
    """
    pyplot = load_pyplot("--plot")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for row in rows:
        low, high = row.accuracy_interval
        slow, fast = row.tokens_per_loop_interval
        x = row.tokens_per_loop
        y = 100 * row.accuracy
        axes.errorbar(
            [x],
            [y],
            xerr=[[x - slow], [fast - x]],
            yerr=[[y - 100 * low], [100 * high - y]],
            fmt="o",
            label=row.name,
        )
    axes.set_xlabel("tokens per loop")
    axes.set_ylabel("right answers, %")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
