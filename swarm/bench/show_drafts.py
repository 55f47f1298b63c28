"""The sources of drafts as tables: speed, acceptance by lag, and speed by kind of work."""

import json

from rich.console import Console

from swarm.bench.drafts import DraftsReport
from swarm.bench.figures import WayFigures
from swarm.bench.show import in_words, markdown_table
from swarm.decoding.acceptance import SourceAcceptance
from swarm.terminal.tables import print_table

LAGS = 16  # columns of the table
LEAST_JUDGED = 10  # drafted tokens that a rate is worth showing of
SPEEDS = ("", "speedup", "of bound", "tok/s", "alpha", "draft ms", "work", "waits", "identical")
EXPLAINED = (
    "'of bound': of the most that speculation could reach with this draft. alpha: drafted tokens "
    "kept, of those decided. Per token: draft ms, work (positions that the peers computed), waits "
    "for a whole loop."
)
LAGS_EXPLAINED = (
    "Percent of the drafted tokens that were right, where all before them were, by how far behind "
    "the last answer they were drafted."
)
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]], str]  # title, columns, rows, explanation


def tables(report: DraftsReport) -> list[Table]:
    """Return all tables of the report."""
    rows = report.rows()
    made: list[Table] = [("", SPEEDS, [speeds(row) for row in rows], EXPLAINED)]
    lags = [line for row in rows for line in lag_lines(row)]
    if lags:
        columns = ("lag", *map(str, range(1, LAGS + 1)))
        made.append(("acceptance by lag", columns, lags, LAGS_EXPLAINED))
    if len(report.kinds) > 1:
        made.append(("speedup by kind of work", *by_kind(report), ""))
    return made


def show_drafts(report: DraftsReport, as_: str) -> None:
    """Print the report as ``table``, ``markdown`` or ``json``."""
    if as_ == "json":
        print(json.dumps(report.as_dict()))
        return
    console = Console()
    for title, columns, rows, explained in tables(report):
        if as_ == "markdown":
            parts = (title, markdown_table(columns, rows), explained)
            print(*filter(None, parts), sep="\n\n", end="\n\n")
        else:
            print_table(console, columns, rows, title=title)
            console.print(explained, end="\n\n")
    for way, error in report.draft_errors.items():
        print(f"{way}: drafting ended ({error}).")
    print(in_words(report.clients[-1].compute))


def speeds(row: WayFigures) -> tuple[str, ...]:
    """Return the cells of one source's speed."""
    return (
        row.way,
        f"{row.speedup:.2f}x",
        "" if row.bound_share is None else f"{row.bound_share:.0%}",
        f"{row.tokens_per_second:.1f}",
        "" if row.alpha is None else f"{row.alpha:.2f}",
        "" if row.draft_ms is None else f"{row.draft_ms:.1f}",
        f"{row.positions:.1f}",
        f"{row.waits:.2f}",
        {True: "yes", False: "NO", None: "-"}[row.identical],
    )


def lag_lines(row: WayFigures) -> list[tuple[str, ...]]:
    """Return a line for each source of drafts that a way has, without those that drafted little."""
    lines = []
    for source in row.acceptance:
        cells = lag_cells(source)
        if any(cells):
            name = row.way if len(row.acceptance) == 1 else f"{row.way}: {source.source}"
            lines.append((name, *cells))
    return lines


def lag_cells(source: SourceAcceptance) -> list[str]:
    """Return the percentage kept at each lag; empty where too few were decided."""
    rates = zip(source.judged, source.accepted, strict=True)
    cells = [f"{kept / n:.0%}"[:-1] if n >= LEAST_JUDGED else "" for n, kept in rates][:LAGS]
    return cells + [""] * (LAGS - len(cells))


def by_kind(report: DraftsReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of the speedups, with a column for each kind of work."""
    columns = [report.rows(kind) for kind in report.kinds]
    rows = [
        (same[0].way, *(f"{row.speedup:.2f}x" for row in same))
        for same in zip(*columns, strict=True)
    ]
    return ("", *report.kinds), rows
