"""``swarm bench``: measure all ways of decoding on a user's own swarm."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from rich.console import Console
from rich.progress import Progress

from swarm.bench.compare import Comparison, compare
from swarm.bench.figures import WayFigures, all_figures
from swarm.bench.prompts import fitting_prompts
from swarm.bench.show import in_words, markdown, show_table
from swarm.bench.ways import Way, ways_of
from swarm.client.client import SwarmClient
from swarm.client.head_choice import HeadChoice
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.compute import AUTOMATIC, ComputeOptions
from swarm.request import Options
from swarm.util.prompt_files import Prompt

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
        lookup: as `Options.lookup`; False leaves out the ways that copy earlier text.
        head: whether the client holds the LM head.
        compute: where the client computes.
    """

    model: str
    draft: str | None
    network: Network
    prompts: tuple[Prompt, ...]
    max_new_tokens: int
    plain_tokens: int
    link_ms: float = 0.0
    identity: Identity | None = None
    lookup: bool | None = None
    head: HeadChoice = "auto"
    compute: ComputeOptions = AUTOMATIC

    @property
    def ways(self) -> tuple[Way, ...]:
        """All ways of decoding with this draft."""
        return ways_of(self.draft is not None, self.lookup)


async def measure(
    settings: BenchSettings,
    ways: Sequence[Way],
    *,
    peers: Collection[str] = (),
    quiet: bool = False,
) -> list[Comparison]:
    """Decode each prompt in all ways before the next, with a progress bar in a terminal.

    Args:
        peers: ids of the peers that the chain may have; all of the swarm if there are none.

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
        allow=peers,
        head=settings.head,
        **asdict(settings.compute),
    ) as client:
        return await decode_all(
            client,
            ways,
            settings.prompts,
            max_new_tokens=settings.max_new_tokens,
            plain_tokens=settings.plain_tokens,
            quiet=quiet,
        )


async def decode_all(
    client: SwarmClient,
    ways: Sequence[Way],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    plain_tokens: int,
    quiet: bool = False,
) -> list[Comparison]:
    """Decode each prompt in all ways with an open client, after a warm-up.

    Prompts that are too long for the model are left out, unless all are.

    Raises:
        PromptTooLong: if all prompts are too long.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and not quiet
    with Progress(console=console, transient=True, disable=not shown) as bar:
        fitting = fitting_prompts(client, prompts, max_new_tokens)
        if left_out := len(prompts) - len(fitting):
            console.print(f"{left_out} prompts are too long for the model, and are left out")
        job = bar.add_task("prompts", total=len(fitting))
        for way in ways:
            options: Options = {**way.options, "max_new_tokens": WARM_UP_TOKENS}
            await client.generate(fitting[0][1], **options)
        comparisons = []
        for prompt, ids in fitting:
            comparison = await compare(
                client,
                prompt.text,
                ways,
                max_new_tokens=max_new_tokens,
                plain_tokens=plain_tokens,
                ids=ids,
            )
            comparisons.append(replace(comparison, kind=prompt.kind))
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
