"""The section on real sizes: ``swarm bench --shape`` for all shapes, as tables and a picture."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from swarm.bench.figures import WayFigures, figures_from
from swarm.bench.ways import BRANCHES, PLAIN
from swarm.shapes.catalogue import SHAPES, DraftKind
from swarm.shapes.show import PARTS, cells, markdown

COMMAND = [sys.executable, "-m", "swarm.cli", "bench"]
COMMAND += ["--without-head", "--json", "--max-new-tokens", "32", "--plain-tokens", "10"]
# Beside each other for every kind of draft; the client as it was had a draft model.
OPTIONS: dict[DraftKind, tuple[str, ...]] = {"model": ("--before",), "head": ()}
CLIENTS = {"before": "before", "ways": "now", "without_head": "without a head"}
COLOURS = ("tab:gray", "tab:green", "tab:red", "tab:blue", "gainsboro")  # of `PARTS`
Told = dict[str, Any]  # what the command prints


async def sizes() -> AsyncIterator[Told]:
    """Measure one shape after the other, each in a process of its own, which frees its memory.

    A shape that does not fit into this computer is left out.
    """
    for name, (kind, options) in product(SHAPES, OPTIONS.items()):
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("--shape", name, "--drafter", kind, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            why = err.decode().strip().splitlines()[-1]
            print(f"{name} with a draft {kind} is left out: {why}", flush=True)
            continue
        told = json.loads(out)
        for label, rows in _clients(told):
            print(f"{name}, draft {kind}, {label}: {_summary(rows)}", flush=True)
        yield told


def size_tables(all_told: Sequence[Told]) -> list[str]:
    """Return a heading and a table for every shape."""
    lines = []
    for told in all_told:
        shape = told["shape"]
        stages = ", ".join(f"{ms:g}" for ms in dict.fromkeys(shape["stage_ms"]))
        lines += [
            f"### {shape['name']}, {shape['peers']} peers of {stages} ms, draft {shape['drafter']}",
            "",
            markdown(
                [
                    cells(row, f"{row.way}, {label}")
                    for label, rows in _clients(told)
                    for row in rows
                ]
            ),
            "",
        ]
    return lines


def plot_sizes(all_told: Sequence[Told], file: Path) -> None:
    """Plot a token's time, and what it waited for, with plain decoding and by default."""
    figure, panels = pyplot.subplots(
        1,
        len(all_told),
        figsize=(4 * len(all_told), 3),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axes, told in zip(panels.flat, all_told, strict=True):
        bars = [
            (f"{row.way}\n{label}", row)
            for label, rows in _clients(told)
            for row in rows
            if row.way in (PLAIN.name, BRANCHES.name) and row.share
        ]
        for place, (name, row) in enumerate(bars):
            start = 0.0
            shares = asdict(row.share) if row.share else {}
            for part, colour in zip(PARTS, COLOURS, strict=True):
                width = 1e3 / row.tokens_per_second * shares[part]
                axes.barh(name, width, left=start, color=colour, label=None if place else part)
                start += width
        axes.set_title(f"{told['shape']['name']}, draft {told['shape']['drafter']}")
        axes.set_xlabel("ms a token")
        axes.grid(alpha=0.3, axis="x")
    panels.flat[0].invert_yaxis()
    panels.flat[-1].legend(fontsize="small")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _clients(told: Told) -> Iterator[tuple[str, list[WayFigures]]]:
    for key, label in CLIENTS.items():
        if told[key]:
            yield label, [figures_from(row) for row in told[key]]


def _summary(rows: Sequence[WayFigures]) -> str:
    return "  ".join(f"{row.way} {row.tokens_per_second:.1f}/s {row.speedup:.2f}x" for row in rows)
