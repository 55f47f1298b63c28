"""Turn the laboratory's JSON into tables and pictures: ``python tests/lab/report.py FOLDER``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from lab.drafts import draft_tables
from lab.head_cost import head_table
from lab.sizes import plot_sizes, size_tables
from swarm.bench.figures import WayFigures, figures_from
from swarm.bench.show import markdown
from swarm.bench.ways import ADAPTIVE, BRANCHES, PLAIN, STREAMING

Cell = dict[str, Any]


def write_report(folder: Path) -> None:
    """Write ``report.md`` and the pictures beside ``results.json``."""
    results = json.loads((folder / "results.json").read_text())
    parts = [f"{name}: {value}  " for name, value in results["facts"].items()]
    if results["matrix"]:
        parts += ["", "## Peers and delay", "", *_matrix_tables(results["matrix"])]
        _plot_matrix(results["matrix"], folder / "speedup.png")
        _plot_savings(results["matrix"], folder / "savings.png")
    if results["weather"]:
        parts += ["", "## Jitter, loss, thin links (4 peers, 20 ms)", ""]
        for cell in results["weather"]:
            parts += [f"### {cell['weather']}", "", markdown(_rows(cell)), ""]
    if results["sessions"]:
        parts += ["", "## Sessions side by side (4 peers)", "", _session_table(results["sessions"])]
        _plot_sessions(results["sessions"], folder / "sessions.png")
    if results.get("draft"):
        parts += ["", "## Draft models on this CPU", "", *draft_tables(results["draft"])]
    if results["sizes"]:
        parts += ["", "## Real sizes", "", *size_tables(results["sizes"])]
        plot_sizes(results["sizes"], folder / "sizes.png")
    if results.get("head"):
        parts += ["", "## Judging a frame", "", *head_table(results["head"])]
    (folder / "report.md").write_text("\n".join(parts) + "\n")


def _rows(cell: Cell) -> list[WayFigures]:
    return [figures_from(row) for row in cell["figures"]]


def _named(cell: Cell, way: str) -> WayFigures:
    return next(row for row in _rows(cell) if row.way == way)


def _best_window(cell: Cell) -> WayFigures:
    return max(
        (row for row in _rows(cell) if row.way.startswith("window")), key=lambda row: row.speedup
    )


def _matrix_tables(cells: Sequence[Cell]) -> list[str]:
    lines = [
        (
            "| peers | delay | plain loop | over links and stages | best window | streaming |"
            " branches | adaptive | branches / best window | branches / streaming | waits saved |"
        ),
        "|" + " ---: |" * 11,
    ]
    for cell in cells:
        best, streaming, branches = (
            _best_window(cell),
            _named(cell, STREAMING.name),
            _named(cell, BRANCHES.name),
        )
        plain = _named(cell, PLAIN.name)
        least_ms = (cell["peers"] + 1) * cell["delay_ms"] + plain.stages_ms
        lines.append(
            f"| {cell['peers']} | {cell['delay_ms']:g} ms | {plain.loop_ms:.0f} ms |"
            f" {plain.loop_ms / least_ms:.3f} | {best.speedup:.2f}x ({best.way.rpartition(' ')[2]})"
            f" | {streaming.speedup:.2f}x | {branches.speedup:.2f}x |"
            f" {_named(cell, ADAPTIVE.name).speedup:.2f}x | {branches.speedup / best.speedup:.2f} |"
            f" {branches.speedup / streaming.speedup:.2f} | {1 - branches.waits:.0%} |"
        )
    for cell in cells:
        lines += [
            "",
            f"### {cell['peers']} peers, {cell['delay_ms']:g} ms, {cell['prompts']} prompts",
            "",
        ]
        lines.append(markdown(_rows(cell)))
    return lines


def _session_table(cells: Sequence[Cell]) -> str:
    lines = [
        "| way | delay | sessions | tokens/s | times one plain | least share of the mean | work |"
        " queue |"
    ]
    lines.append("|" + " --- |" + " ---: |" * 7)
    for cell in cells:
        plain = next(
            other["tokens_per_second"]
            for other in cells
            if (other["way"], other["sessions"], other["delay_ms"])
            == (PLAIN.name, 1, cell["delay_ms"])
        )
        mean = sum(cell["rates"]) / len(cell["rates"])
        lines.append(
            f"| {cell['way']} | {cell['delay_ms']:g} ms | {cell['sessions']} |"
            f" {cell['tokens_per_second']:.0f} | {cell['tokens_per_second'] / plain:.2f} |"
            f" {min(cell['rates']) / mean:.2f} | {cell['positions']:.1f} | {cell['queue_ms']:.1f}"
            " ms |"
        )
    return "\n".join(lines)


def _plot_matrix(cells: Sequence[Cell], file: Path) -> None:
    """Plot the speedup over plain decoding by delay, in a panel for each number of peers."""
    peers = sorted({cell["peers"] for cell in cells})
    figure, panels = pyplot.subplots(
        1, len(peers), figsize=(4 * len(peers), 4), sharey=True, layout="constrained"
    )
    for axes, count in zip(_listed(panels), peers, strict=True):
        mine = [cell for cell in cells if cell["peers"] == count]
        delays = [cell["delay_ms"] for cell in mine]
        lines = {
            "best window": [_best_window(cell) for cell in mine],
            **{
                way: [_named(cell, way) for cell in mine]
                for way in (STREAMING.name, BRANCHES.name, ADAPTIVE.name)
            },
        }
        for name, rows in lines.items():
            axes.plot(delays, [row.speedup for row in rows], marker="o", label=name)
        axes.set_title(f"{count} peers")
        axes.set_xlabel("one-way delay of a link, ms")
        axes.grid(alpha=0.3)
    _listed(panels)[0].set_ylabel("speedup over plain decoding")
    _listed(panels)[-1].legend(fontsize="small")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _plot_savings(cells: Sequence[Cell], file: Path) -> None:
    """Plot the cost of a token to network and peers, at the longest chain and the longest links."""
    cell = max(cells, key=lambda each: (each["peers"], each["delay_ms"]))
    rows = _rows(cell)
    shown = {
        "waits for a whole loop": [row.waits for row in rows],
        "frames": [row.frames for row in rows],
        "positions computed": [row.positions for row in rows],
        "kB sent and received": [(row.bytes_sent + row.bytes_received) / 1e3 for row in rows],
    }
    figure, panels = pyplot.subplots(
        1, len(shown), figsize=(14, 3.5), sharey=True, layout="constrained"
    )
    for axes, (title, values) in zip(_listed(panels), shown.items(), strict=True):
        axes.barh([row.way for row in rows], values)
        axes.set_title(f"{title} per token", fontsize="medium")
        axes.grid(alpha=0.3, axis="x")
    _listed(panels)[0].invert_yaxis()
    figure.suptitle(f"{cell['peers']} peers, {cell['delay_ms']:g} ms")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _plot_sessions(cells: Sequence[Cell], file: Path) -> None:
    """Plot the throughput over sessions."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for way, delay_ms in dict.fromkeys((cell["way"], cell["delay_ms"]) for cell in cells):
        mine = [cell for cell in cells if (cell["way"], cell["delay_ms"]) == (way, delay_ms)]
        axes.plot(
            [cell["sessions"] for cell in mine],
            [cell["tokens_per_second"] for cell in mine],
            marker="o",
            label=f"{way}, {delay_ms:g} ms links",
        )
    axes.set_xlabel("sessions side by side")
    axes.set_ylabel("tokens/s of all together")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _listed(panels: Any) -> list[Axes]:
    return list(panels.flat) if hasattr(panels, "flat") else [panels]


if __name__ == "__main__":
    write_report(Path(sys.argv[1]))
