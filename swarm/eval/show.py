"""An evaluation as a table, for a terminal or for a document, and as a plot."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from swarm.eval.report import ReportRow, RightAnswers
from swarm.terminal.plots import load_pyplot
from swarm.terminal.tables import print_table

ANSWERS = ("right", "right, 95 %", "to plain", "to plain, 95 %", "p")
COLUMNS = (
    "",
    *ANSWERS,
    "tokens/loop",
    "kept",
    "relaxed/100",
    "nats/100",
    "log p",
    "log p to plain, 95 %",
    "length",
    "agrees, 95 %",
    "no stop",
)
BRIEF = ("", "right", "to plain", "to plain, 95 %", "tokens/loop", "kept", "nats/100")
# For a task whose answers no program can check.
BRIEF_UNCHECKED = ("", "tokens/loop", "kept", "nats/100", "log p", "length", "agrees, 95 %")


def columns(rows: Sequence[ReportRow], *, brief: bool = False) -> tuple[str, ...]:
    """Return the columns of a table: all that have a figure, or the most important of these."""
    checked = any(row.answers for row in rows)
    if brief:
        return BRIEF if checked else BRIEF_UNCHECKED
    return tuple(column for column in COLUMNS if checked or column not in ANSWERS)


def cells(row: ReportRow) -> dict[str, str]:
    """Return a row as text, by column."""
    slow, fast = row.tokens_per_loop_interval
    least, most = row.agreement_interval
    log_p = row.log_p_difference_interval
    return {
        "": row.name,
        **_answer_cells(row.answers),
        "tokens/loop": f"{row.tokens_per_loop:.2f} ({slow:.2f} to {fast:.2f})",
        "kept": "-" if row.acceptance is None else f"{row.acceptance:.1%}",
        "relaxed/100": f"{row.relaxed_per_100:.1f}",
        "nats/100": f"{row.deficit_per_100:.2f}",
        "log p": "-" if row.mean_log_p is None else f"{row.mean_log_p:.3f}",
        "log p to plain, 95 %": "-" if log_p is None else f"{log_p[0]:+.3f} to {log_p[1]:+.3f}",
        "length": f"{row.length_drift:+.1%}",
        "agrees, 95 %": f"{row.agreement:.1%} ({least:.1%} to {most:.1%})",
        "no stop": f"{row.no_stop:.1%}",
    }


def _answer_cells(answers: RightAnswers | None) -> dict[str, str]:
    if answers is None:
        return dict.fromkeys(ANSWERS, "-")
    low, high = answers.accuracy_interval
    worse, better = answers.difference_interval
    doubt = "" if answers.non_inferior else " !"
    figures = (
        f"{answers.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{100 * answers.difference:+.1f}",
        f"{100 * worse:+.1f} to {100 * better:+.1f}{doubt}",
        f"{answers.p_value:.2g}",
    )
    return dict(zip(ANSWERS, figures, strict=True))


def show_table(rows: Sequence[ReportRow], margin: float) -> None:
    """Print the most important figures to a terminal; the other formats have all."""
    chosen = columns(rows, brief=True)
    console = Console()
    print_table(console, chosen, [[cells(row)[column] for column in chosen] for row in rows])
    if "to plain" in chosen:
        loss = f"a loss of more than {100 * margin:g} points"
        console.print(f"'to plain' in points; ! where {loss} is not ruled out.")


def markdown(rows: Sequence[ReportRow]) -> str:
    """Return a table of all figures for a document."""
    chosen = columns(rows)
    lines = [
        chosen,
        ("---", *["---:"] * (len(chosen) - 1)),
        *([cells(row)[column] for column in chosen] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: Sequence[ReportRow], file: Path) -> None:
    """Plot accuracy over tokens per loop, with intervals, as PNG or SVG.

    Plots the agreement with the plain target where no program can check answers.

    Raises:
        MissingExtra: without matplotlib.
    """
    pyplot = load_pyplot("--plot")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for row in rows:
        answers = row.answers
        low, high = answers.accuracy_interval if answers else row.agreement_interval
        slow, fast = row.tokens_per_loop_interval
        x = row.tokens_per_loop
        y = 100 * (answers.accuracy if answers else row.agreement)
        axes.errorbar(
            [x],
            [y],
            xerr=[[x - slow], [fast - x]],
            yerr=[[y - 100 * low], [100 * high - y]],
            fmt="o",
            label=row.name,
        )
    axes.set_xlabel("tokens per loop")
    checked = any(row.answers for row in rows)
    axes.set_ylabel("right answers, %" if checked else "agreement with the plain target, %")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
