"""``swarm distill``: train a head that drafts for one model."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from swarm.cli.grouping import grouped
from swarm.cli.options import (
    MAX_TOKENS,
    bootstrap_option,
    count_option,
    format_options,
    identity_option,
    named_identity,
    named_network,
    network_option,
)
from swarm.cli.params import FILE, DeviceName, ModelName, Number
from swarm.demo import locate
from swarm.model.compute import DEVICE_NAMES

FOLDER = click.Path(path_type=Path, file_okay=False)
MOST_TOKENS = 100_000_000
PROBLEMS = 100_000  # word problems, without prompts
PROBLEM_SEED = 77


@dataclass(frozen=True)
class DistillOptions:
    """What a head is made from, and for how long."""

    out: Path
    prompts: Path | None
    texts: Path | None
    tokens: int
    minutes: float
    passes: int
    max_new_tokens: int
    temperature: float
    seed: int
    vocab: int
    lag: int
    device: str
    compare: str | None


@click.command()
@click.argument("model", type=ModelName())
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder of the head. The same command goes on with what it finds there.",
)
@click.option(
    "--prompts",
    type=FILE,
    help="File of prompts, JSON lines as of GSM8K or Spec-Bench, instead of word problems.",
)
@click.option(
    "--texts",
    type=FOLDER,
    help="Folder of earlier texts of MODEL, .txt or .jsonl, instead of prompts.",
)
@count_option("--tokens", 400_000, (100, MOST_TOKENS), "Tokens that MODEL writes, at most.")
@click.option(
    "--minutes",
    default=9.0,
    show_default=True,
    type=Number(0.01, 100_000),
    help="For all, writing and training.",
)
@count_option("--passes", 12, (1, 1000), "Of the training over the texts, at most.")
@count_option("--max-new-tokens", 256, (4, MAX_TOKENS), "Length of a text.")
@click.option(
    "--temperature", default=0.0, show_default=True, type=Number(0, 100), help="0 is greedy."
)
@count_option("--seed", 0, (0, None), "Of sampling.")
@count_option(
    "--vocab",
    8192,
    (16, 1 << 24),
    "Tokens that the head can draft, the most frequent ones of the texts.",
)
@count_option(
    "--lag", 16, (1, 64), "How many tokens behind MODEL's last answer the head learns to draft."
)
@click.option(
    "--compare", type=ModelName(draft=True), metavar="DRAFT", help="Measure a draft model, too."
)
@click.option(
    "--device",
    type=DeviceName(),
    default="auto",
    show_default=True,
    help=f"Where to compute: {DEVICE_NAMES}.",
)
@identity_option
@bootstrap_option
@network_option
@format_options
@grouped(DistillOptions, "options")
def distill(
    model: str,
    options: DistillOptions,
    as_: str,
    bootstrap: tuple[str, ...],
    network: str | None,
) -> None:
    """Train a small head that drafts for MODEL, on texts that MODEL writes itself.

    Runs MODEL in this process, or uses a swarm with --bootstrap. Give the folder to --draft.
    """
    if options.prompts is not None and options.texts is not None:
        raise click.UsageError("give --prompts or --texts, not both")
    from swarm.demo.problems import problems
    from swarm.distill import command
    from swarm.distill.settings import DistillSettings, Writing
    from swarm.distill.show import show
    from swarm.terminal.progress import progress_bar
    from swarm.util.prompt_files import Prompt, read_prompts

    some = islice(problems(PROBLEM_SEED, held_out=False), PROBLEMS)
    prompts: Iterable[Prompt] = (Prompt(problem.prompt) for problem in some)
    if options.prompts is not None:
        prompts = read_prompts(options.prompts)
    settings = DistillSettings(
        model=locate(model),
        out=options.out,
        tokens=options.tokens,
        minutes=options.minutes,
        passes=options.passes,
        vocab=options.vocab,
        lag=options.lag,
        texts=options.texts,
        device=options.device,
        network=named_network(bootstrap, network) if bootstrap else None,
        identity=named_identity(),
        compare=None if options.compare is None else locate(options.compare),
        writing=Writing(options.max_new_tokens, options.temperature, options.seed),
    )
    with progress_bar(as_ == "json") as progress:
        report = command.distill(settings, prompts, progress)
    show(report, as_)
