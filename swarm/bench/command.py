"""``swarm bench``: a user's own swarm, in every way of decoding, side by side."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress

from swarm.bench.compare import Comparison, compare
from swarm.bench.figures import Figures, all_figures
from swarm.bench.show import markdown, show_table
from swarm.bench.ways import Way, ways_of
from swarm.client.client import SwarmClient
from swarm.config import Network
from swarm.identity import Identity
from swarm.request import Options

WARM_UP_TOKENS = 8  # of each way, not counted: links, caches and what is learned of the draft


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Args:
        plain_tokens: length of the plain texts, which take longest and whose speed does not depend
            on it.
    """

    model: str
    draft: str | None  # None: what was said before is looked up instead
    network: Network
    prompts: tuple[str, ...]
    max_new_tokens: int
    plain_tokens: int
    link_ms: float = 0.0  # emulated one-way delay of what the client sends
    identity: Identity | None = None  # None: somebody new
    lookup: bool = False  # also where there is a draft model

    @property
    def ways(self) -> tuple[Way, ...]:
        return ways_of(self.draft is not None, self.lookup)


async def measure(asked: Asked, quiet: bool = False) -> list[Comparison]:
    """Each prompt in all ways before the next, with a progress bar in a terminal.

    Raises what `SwarmClient` raises.
    """
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True)
        if console.is_terminal and not quiet
        else nullcontext() as bar
    ):
        job = bar.add_task("prompts", total=len(asked.prompts)) if bar else None
        async with SwarmClient(
            asked.model,
            draft=asked.draft,
            network=asked.network,
            link_ms=asked.link_ms,
            identity=asked.identity,
            audit_rate=0.0,
        ) as client:
            for way in asked.ways:
                options: Options = {**way.options, "max_new_tokens": WARM_UP_TOKENS}
                await client.generate(asked.prompts[0], **options)
            comparisons = []
            for prompt in asked.prompts:
                comparisons.append(
                    await compare(
                        client,
                        prompt,
                        asked.ways,
                        max_new_tokens=asked.max_new_tokens,
                        plain_tokens=asked.plain_tokens,
                    )
                )
                if bar is not None and job is not None:
                    bar.advance(job)
            return comparisons


def show(comparisons: Sequence[Comparison], ways: Sequence[Way], as_: str) -> None:
    """Print the figures as ``table``, ``markdown`` or ``json``."""
    rows: list[Figures] = all_figures(comparisons, ways)
    if as_ == "json":
        print(
            json.dumps(
                {
                    "ways": [row.as_dict() for row in rows],
                    "prompts": [c.as_dict() for c in comparisons],
                }
            )
        )
    elif as_ == "markdown":
        print(markdown(rows))
    else:
        show_table(rows)
