"""A report as a table: for a terminal, and for a document."""

import json

import click
from rich.console import Console

from swarm.distill.report import ByLag, Report
from swarm.terminal.tables import print_table

EXPLAINED = (
    "The chance that a draft is right if all before it were, by how many tokens it is behind the"
    " last answer; on texts that were held out. alpha: the constant chance that gives the same run."
)


def columns(report: Report) -> list[str]:
    """Return the titles: of the drafter, its cost, alpha, and every lag."""
    return ["", "weights", "alpha", *map(str, range(1, len(report.head.chances) + 1))]


def rows(report: Report) -> list[list[str]]:
    """Return a row for each drafter that was measured."""
    found = [_row("head", report.head, report.head_weights)]
    if report.draft is not None:
        found.append(_row("draft", report.draft, report.draft_weights))
    return found


def markdown(report: Report) -> str:
    """Return the table for a document."""
    titles = columns(report)
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows(report)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(report: Report, as_: str) -> None:
    """Print a report: ``table``, ``markdown`` or ``json``."""
    if as_ == "json":
        click.echo(json.dumps(report.as_dict()))
        return
    if as_ == "markdown":
        click.echo(markdown(report))
        return
    console = Console()
    print_table(console, columns(report), rows(report))
    console.print(EXPLAINED)


def _row(name: str, by_lag: ByLag, weights: int) -> list[str]:
    chances = [f"{chance:.2f}" for chance in by_lag.chances]
    return [name, f"{weights / 1e6:.2f} M", f"{by_lag.alpha:.2f}", *chances]
