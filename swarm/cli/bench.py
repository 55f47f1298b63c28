"""``swarm bench``: how fast a swarm is."""

from itertools import islice

import click

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


@click.command()
@click.argument("model", type=ModelName())
@click.option(
    "--draft", type=ModelName(draft=True), default="none", metavar="PATH|none", help="Draft model."
)
@click.option(
    "--lookup",
    is_flag=True,
    help="Also look up what was said before, as is done without a draft model.",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    type=Text(),
    metavar="TEXT",
    help="Instead of word problems; may be given often.",
)
@click.option(
    "--count", default=3, show_default=True, type=click.IntRange(1, 1000), help="Word problems."
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
    help="Length of plain texts.",
)
@click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True)  # emulated one-way delay
@entrance_options
@format_options
def bench(
    model: str,
    draft: str,
    lookup: bool,
    prompts: tuple[str, ...],
    count: int,
    max_new_tokens: int,
    plain_tokens: int,
    link_ms: float,
    as_: str,
) -> None:
    """Measure how fast a swarm decodes MODEL in every way, side by side, and how near that is to
    what is possible."""
    net, identity = entrance()
    from swarm.bench import command
    from swarm.demo.problems import problems  # any language model can go on with word problems

    asked = command.Asked(
        model=locate(model),
        draft=None if draft == "none" else locate(draft),
        lookup=lookup,
        network=net,
        prompts=prompts
        or tuple(problem.prompt for problem in islice(problems(seed=6, held_out=True), count)),
        max_new_tokens=max_new_tokens,
        plain_tokens=plain_tokens,
        link_ms=link_ms,
        identity=identity,
    )
    command.show(run(command.measure(asked, quiet=as_ == "json")), asked.ways, as_)
