"""``swarm bench``: measure all ways of decoding on a user's own swarm."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress

from swarm.bench.compare import Comparison, compare
from swarm.bench.figures import WayFigures, all_figures
from swarm.bench.show import markdown, show_table
from swarm.bench.ways import Way, ways_of
from swarm.client.client import SwarmClient
from swarm.client.head_choice import HeadChoice
from swarm.config import Network
from swarm.identity import Identity
from swarm.request import Options

WARM_UP_TOKENS = 8  # of each way, not measured: they warm links, caches and the draft's calibration


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Attributes:
        draft: None to draft by lookup.
        plain_tokens: length of the plain texts, which take longest and whose speed does not depend
            on it.
        link_ms: emulated one-way delay of everything that the client sends.
        identity: None for a new one.
        lookup: whether to look tokens up in earlier text, too; None does without a draft model.
        head: whether the client holds the LM head.
    """

    model: str
    draft: str | None
    network: Network
    prompts: tuple[str, ...]
    max_new_tokens: int
    plain_tokens: int
    link_ms: float = 0.0
    identity: Identity | None = None
    lookup: bool | None = None
    head: HeadChoice = "auto"

    @property
    def ways(self) -> tuple[Way, ...]:
        return ways_of(self.draft is not None, self.lookup)


async def measure(settings: BenchSettings, quiet: bool = False) -> list[Comparison]:
    """Decode each prompt in all ways before the next, with a progress bar in a terminal.

    Raises:
        SwarmError: what `SwarmClient` raises.
    """
    async with SwarmClient(
        settings.model,
        draft=settings.draft,
        network=settings.network,
        link_ms=settings.link_ms,
        identity=settings.identity,
        audit_rate=0.0,
        head=settings.head,
    ) as client:
        return await decode_all(
            client,
            settings.ways,
            settings.prompts,
            max_new_tokens=settings.max_new_tokens,
            plain_tokens=settings.plain_tokens,
            quiet=quiet,
        )


async def decode_all(
    client: SwarmClient,
    ways: Sequence[Way],
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    plain_tokens: int,
    quiet: bool = False,
) -> list[Comparison]:
    """Decode each prompt in all ways with an open client, after a warm-up."""
    console = Console(stderr=True)
    shown = console.is_terminal and not quiet
    with Progress(console=console, transient=True, disable=not shown) as bar:
        job = bar.add_task("prompts", total=len(prompts))
        for way in ways:
            options: Options = {**way.options, "max_new_tokens": WARM_UP_TOKENS}
            await client.generate(prompts[0], **options)
        comparisons = []
        for prompt in prompts:
            comparison = await compare(
                client, prompt, ways, max_new_tokens=max_new_tokens, plain_tokens=plain_tokens
            )
            comparisons.append(comparison)
            bar.advance(job)
        return comparisons


def show(comparisons: Sequence[Comparison], ways: Sequence[Way], as_: str) -> None:
    """Print the figures as ``table``, ``markdown`` or ``json``."""
    rows: list[WayFigures] = all_figures(comparisons, ways)
    if as_ == "json":
        prompts = [comparison.as_dict() for comparison in comparisons]
        print(json.dumps({"ways": [row.as_dict() for row in rows], "prompts": prompts}))
    elif as_ == "markdown":
        print(markdown(rows))
    else:
        show_table(rows)
