"""What a client of a real size reaches, and what its texts waited for, as tables."""

import json
from collections.abc import Sequence
from dataclasses import astuple, fields

from rich.console import Console

from swarm.bench.figures import WayFigures
from swarm.bench.show import in_words
from swarm.bench.ways import BRANCHES
from swarm.outputs import TimeShare
from swarm.shapes.bench import NOW, ShapeResult
from swarm.shapes.catalogue import RTX_4090
from swarm.terminal.bottleneck import bottleneck
from swarm.terminal.tables import print_table

PARTS = tuple(part.name for part in fields(TimeShare))
COLUMNS = (
    "",
    "tok/s",
    "speedup",
    "of bound",
    "loop ms",
    "draft ms",
    "judge ms",
    "alpha",
    "branches",
    *PARTS,
)
EXPLAINED = (
    "links to waiting: what the text waited for. 'judge ms': until an answer is judged. 'draft ms':"
    " until a drafted line is one token longer. The draft's guesses are right by chance, by alpha;"
    " times of peers are worked out for a "
)


def cells(row: WayFigures, name: str = "") -> tuple[str, ...]:
    """Return one row as text, under another name if one is given."""
    shares = [f"{share:.0%}" for share in astuple(row.share)] if row.share else [""] * len(PARTS)
    return (
        name or row.way,
        f"{row.tokens_per_second:.1f}",
        f"{row.speedup:.2f}x",
        "" if row.bound_share is None else f"{row.bound_share:.0%}",
        f"{row.loop_ms:.0f}",
        "" if row.draft_ms is None else f"{row.draft_ms:.0f}",
        "" if row.judge_ms is None else f"{row.judge_ms:.0f}",
        "" if row.alpha is None else f"{row.alpha:.2f}",
        f"{row.branches:.2f}",
        *shares,
    )


def all_cells(result: ShapeResult) -> list[tuple[str, ...]]:
    """Return the rows of all clients; those of other clients than the one of now say so."""
    return [
        cells(row, "" if client == NOW else f"{row.way}, {client}")
        for client in result.clients
        for row in result.rows(client)
    ]


def show(result: ShapeResult, as_: str) -> None:
    """Print the figures as ``table``, ``markdown`` or ``json``."""
    if as_ == "json":
        print(json.dumps(result.as_dict()))
    elif as_ == "markdown":
        print(markdown(all_cells(result)))
    else:
        console = Console()
        print_table(console, COLUMNS, all_cells(result), title=title(result))
        console.print(EXPLAINED + RTX_4090.name + ".")
        for name, comparisons in result.clients.items():
            console.print(f"{name.capitalize()}: {in_words(comparisons[0].plain.stats.compute)}")
        if why := held_back(result):
            console.print(f"The default is not faster still because {why}.")


def held_back(result: ShapeResult) -> str | None:
    """Return what holds back the longest text that was written by default, if anything does."""
    texts = (comparison.ways[BRANCHES.name].stats for comparison in result.clients[NOW])
    return bottleneck(max(texts, key=lambda stats: stats.seconds))


def title(result: ShapeResult) -> str:
    """Return what was measured in one line."""
    settings = result.settings
    stages = ", ".join(f"{ms:g}" for ms in dict.fromkeys(result.stage_ms))
    weights = settings.shape.drafting(settings.drafting).numel(settings.shape)
    return (
        f"{settings.shape.name}, {settings.peers} peers of {stages} ms, links of"
        f" {settings.link_ms:g} ms, a draft {settings.drafting} of {weights / 1e6:,.0f}M weights"
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return the table for a document."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
