"""``swarm bench``: measure how fast a swarm is."""

from dataclasses import dataclass
from itertools import islice

import click

from swarm.cli.grouping import grouped
from swarm.cli.options import (
    MAX_TOKENS,
    ModelName,
    Number,
    Text,
    entrance,
    entrance_options,
    format_options,
)
from swarm.demo import locate
from swarm.terminal.signals import run


@dataclass(frozen=True)
class BenchOptions:
    """What is measured."""

    draft: str
    lookup: bool
    prompts: tuple[str, ...]
    count: int
    max_new_tokens: int
    plain_tokens: int
    link_ms: float


@click.command()
@click.argument("model", type=ModelName())
@click.option(
    "--draft", type=ModelName(draft=True), default="none", metavar="PATH|none", help="Draft model."
)
@click.option(
    "--lookup",
    is_flag=True,
    help="Also draft by looking up earlier text, as without a draft model.",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    type=Text(),
    metavar="TEXT",
    help="Prompt instead of word problems; may be given several times.",
)
@click.option(
    "--count",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Word problems.",
)
@click.option(
    "--max-new-tokens",
    default=128,
    show_default=True,
    type=click.IntRange(2, MAX_TOKENS),
    help="Length of the texts.",
)
@click.option(
    "--plain-tokens",
    default=32,
    show_default=True,
    type=click.IntRange(2, MAX_TOKENS),
    help="Length of the texts of plain decoding.",
)
@click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True)  # emulated one-way delay
@entrance_options
@format_options
@grouped(BenchOptions, "options")
def bench(model: str, options: BenchOptions, as_: str) -> None:
    """Measure all ways of decoding MODEL side by side, and how near each is to its bound."""
    net, identity = entrance()
    from swarm.bench import command
    from swarm.demo.problems import problems  # any language model can continue word problems

    word_problems = islice(problems(seed=6, held_out=True), options.count)
    settings = command.BenchSettings(
        model=locate(model),
        draft=None if options.draft == "none" else locate(options.draft),
        lookup=options.lookup,
        network=net,
        prompts=options.prompts or tuple(problem.prompt for problem in word_problems),
        max_new_tokens=options.max_new_tokens,
        plain_tokens=options.plain_tokens,
        link_ms=options.link_ms,
        identity=identity,
    )
    command.show(run(command.measure(settings, quiet=as_ == "json")), settings.ways, as_)
