"""Checks, and the tables that they print. A check that fails does not stop the others."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from swarm.terminal.tables import print_table

VERDICTS = {True: "pass", False: "FAIL", None: ""}


@dataclass(frozen=True)
class Row:
    """One line of a table; ``passed`` is None for what is only measured."""

    cells: tuple[str, ...]
    passed: bool | None = None


@dataclass
class Table:
    """What a check found.

    Attributes:
        columns: the first one names the row; the verdict follows the last one.
        notes: sentences below the table.
    """

    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object, passed: bool | None = None) -> None:
        self.rows.append(Row(tuple(map(str, cells)), passed))

    @property
    def failures(self) -> int:
        return sum(row.passed is False for row in self.rows)


@dataclass(frozen=True)
class Check:
    """One check; ``run`` may raise anything."""

    name: str
    title: str
    run: Callable[[], Table]


def run_all(checks: Sequence[Check], console: Console) -> list[str]:
    """Run all checks, print their tables, and return the names of those that failed."""
    failed = []
    for check in checks:
        started = time.perf_counter()
        try:
            table = check.run()
            show(table, check.title, console)
            passed = not table.failures
        except Exception as error:
            console.print(check.title, style="italic", markup=False)
            console.print(traceback.format_exc(limit=-4), markup=False, highlight=False)
            console.print(f"FAIL: {type(error).__name__}: {error}", markup=False)
            passed = False
        console.print(f"({time.perf_counter() - started:.0f} s)\n")
        if not passed:
            failed.append(check.name)
    verdict = f"{len(checks) - len(failed)} of {len(checks)} checks passed"
    console.print(verdict + (f"; failed: {', '.join(failed)}" if failed else ""))
    return failed


def show(table: Table, title: str, console: Console) -> None:
    """Print a table with its verdicts, and the notes below it."""
    judged = any(row.passed is not None for row in table.rows)
    columns = (*table.columns, "verdict") if judged else table.columns
    rows = [(*row.cells, VERDICTS[row.passed]) if judged else row.cells for row in table.rows]
    print_table(console, columns, rows, title=title, left=("verdict",))
    for note in table.notes:
        console.print(note, markup=False, highlight=False)
