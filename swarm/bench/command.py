"""``swarm bench``: measure all ways of decoding on a user's own swarm."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import Progress

from swarm.bench.compare import Comparison, compare
from swarm.bench.figures import WayFigures, all_figures
from swarm.bench.show import in_words, markdown, show_table
from swarm.bench.ways import Way, ways_of
from swarm.client.client import SwarmClient
from swarm.client.head_choice import HeadChoice
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.compute import AUTOMATIC, ComputeOptions
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
        compute: where the client computes.
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
    compute: ComputeOptions = AUTOMATIC

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
        **asdict(settings.compute),
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
    compute = comparisons[0].plain.stats.compute
    if as_ == "json":
        prompts = [comparison.as_dict() for comparison in comparisons]
        ways_as_dict = [row.as_dict() for row in rows]
        where = asdict(compute)
        print(json.dumps({"ways": ways_as_dict, "compute": where, "prompts": prompts}))
    elif as_ == "markdown":
        print(markdown(rows), in_words(compute), sep="\n\n")
    else:
        show_table(rows)
        print(in_words(compute))
