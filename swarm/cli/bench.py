"""``swarm bench``: measure how fast a swarm is, or would be at a real size."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from swarm.cli.grouping import grouped
from swarm.cli.options import (
    MAX_TOKENS,
    compute_options,
    entrance,
    entrance_options,
    format_options,
    head_option,
)
from swarm.cli.params import FILE, NO_MODEL, ModelName, Number, TextParam
from swarm.demo import locate
from swarm.shapes.catalogue import SHAPES, DraftKind
from swarm.terminal.signals import run

if TYPE_CHECKING:
    from swarm.model.compute import ComputeOptions
    from swarm.util.prompt_files import Prompt

LINK_MS = 20.0  # of a shape's links
ALPHA = 0.8  # of a shape's draft


@dataclass(frozen=True)
class Amount:
    """How much is decoded by default."""

    texts: int
    new_tokens: int
    plain_tokens: int


OF_A_SWARM = Amount(texts=3, new_tokens=128, plain_tokens=32)
OF_A_SHAPE = Amount(texts=1, new_tokens=48, plain_tokens=16)  # some tokens a second


@dataclass(frozen=True)
class BenchOptions:
    """What is measured. None is the default of what is measured."""

    drafts: tuple[str, ...]
    no_draft: bool
    lookup: bool | None
    all_drafts: bool
    texts: tuple[str, ...]
    prompts: Path | None
    kinds: tuple[str, ...]
    count: int | None
    max_new_tokens: int | None
    plain_tokens: int | None
    shape: str | None
    alpha: float | None
    peers: int | None
    link_ms: float | None
    drafter: str | None
    before: bool
    without_head: bool
    head: str

    def amount(self, default: Amount) -> Amount:
        """Return how much to decode: what was asked for, or the default."""
        return Amount(
            self.count or default.texts,
            self.max_new_tokens or default.new_tokens,
            self.plain_tokens or default.plain_tokens,
        )


def _default(part: str) -> str:
    """Return a part of the default amounts as the help shows it."""
    return f"[default: {getattr(OF_A_SWARM, part)}, of a shape {getattr(OF_A_SHAPE, part)}]"


@click.command()
@click.argument("model", type=ModelName(), required=False)
@click.option(
    "--draft",
    "drafts",
    multiple=True,
    type=ModelName(draft=True),
    metavar="PATH|mtp|none",
    help=(
        "Draft model, or a head for MODEL; mtp is the one inside MODEL's own checkpoint. With"
        " --drafts it may be given several times."
    ),
)
@click.option("--no-draft", is_flag=True, help="The same as --draft none, the default.")
@click.option(
    "--lookup/--no-lookup",
    default=None,
    help="Copy what followed the same tokens before, too; by default where that is likely.",
)
@click.option(
    "--drafts",
    "all_drafts",
    is_flag=True,
    help="Compare sources of drafts instead: copies, each --draft, and each with copies.",
)
@click.option(
    "--prompt",
    "texts",
    multiple=True,
    type=TextParam(),
    metavar="TEXT",
    help="Prompt instead of word problems; may be given several times.",
)
@click.option(
    "--prompts",
    type=FILE,
    help="File of prompts, as Spec-Bench, GSM8K, HumanEval and IFEval are published.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=TextParam(),
    metavar="KIND",
    help="Of these prompts, take one kind of work, such as rag; may be given several times.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 1000),
    help=f"Word problems, prompts of each kind, or texts of a shape. {_default('texts')}",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(2, MAX_TOKENS),
    help=f"Length of the texts. {_default('new_tokens')}",
)
@click.option(
    "--plain-tokens",
    type=click.IntRange(2, MAX_TOKENS),
    help=f"Length of the texts of plain decoding. {_default('plain_tokens')}",
)
@click.option(
    "--shape",
    type=click.Choice(list(SHAPES)),
    help=(
        "Measure this computer as the client of a model of this size, instead of a swarm: peers are"
        " processes here that take the time of GPUs."
    ),
)
@click.option(
    "--alpha",
    type=Number(0, 1),
    help=f"Of a shape: the chance that a drafted token is right. [default: {ALPHA:g}]",
)
@click.option(
    "--peers",
    type=click.IntRange(1, 16),
    help="Of a shape: peers that share its layers. [default: as many as its size takes]",
)
@click.option(
    "--link-ms",
    type=Number(0, 1000),
    help=f"Emulated one-way link delay. [default: {LINK_MS:g} for a shape, else none]",
)
@click.option(
    "--drafter",
    type=click.Choice(get_args(DraftKind)),
    help=(
        "Of a shape: what drafts, a model of 0.6B, or a head of the size that swarm distill makes."
        " [default: model]"
    ),
)
@click.option(
    "--before",
    is_flag=True,
    help="Of a shape: also measure the client with a float32 head and draft model.",
)
@click.option(
    "--without-head",
    is_flag=True,
    help="Of a shape: also measure a client that leaves the head to the last peer.",
)
@head_option
@compute_options
@entrance_options
@format_options
@grouped(BenchOptions, "options")
def bench(model: str | None, options: BenchOptions, compute: "ComputeOptions", as_: str) -> None:
    """Measure all ways of decoding MODEL side by side, and how near each is to its bound.

    With --shape NAME, measure what a model of that size costs here.
    """
    if options.shape is None:
        _bench_swarm(model, options, compute, as_)
    elif model is not None:
        raise click.UsageError("give MODEL or --shape, not both: a shape comes with its own peers")
    else:
        _bench_shape(options.shape, options, compute, as_)


def _bench_swarm(
    model: str | None, options: BenchOptions, compute: "ComputeOptions", as_: str
) -> None:
    if model is None:
        raise click.UsageError("give MODEL to measure a swarm, or --shape NAME")
    of_shapes = {
        "--alpha": options.alpha,
        "--peers": options.peers,
        "--drafter": options.drafter,
        "--before": options.before,
        "--without-head": options.without_head,
    }
    _refuse(of_shapes, "is for --shape")
    drafts = _drafts(options)
    amount = options.amount(OF_A_SWARM)
    prompts = _prompts(options, amount.texts)
    net, identity = entrance()
    from swarm.bench import command
    from swarm.bench.drafts import measure_drafts
    from swarm.bench.show_drafts import show_drafts

    settings = command.BenchSettings(
        model=locate(model),
        draft=drafts[0] if drafts else None,
        lookup=options.lookup,
        network=net,
        prompts=prompts,
        max_new_tokens=amount.new_tokens,
        plain_tokens=amount.plain_tokens,
        link_ms=options.link_ms or 0.0,
        identity=identity,
        head=options.head,  # type: ignore[arg-type]  # one of the choices
        compute=compute,
    )
    quiet = as_ == "json"
    if options.all_drafts:
        show_drafts(run(measure_drafts(settings, drafts, quiet=quiet)), as_)
    else:
        ways = settings.ways
        command.show(run(command.measure(settings, ways, quiet=quiet)), ways, as_)


def _bench_shape(name: str, options: BenchOptions, compute: "ComputeOptions", as_: str) -> None:
    of_swarms = {
        "--draft": options.drafts,
        "--no-draft": options.no_draft,
        "--lookup": options.lookup is True,
        "--no-lookup": options.lookup is False,
        "--drafts": options.all_drafts,
        "--prompt": options.texts,
        "--prompts": options.prompts,
        "--kind": options.kinds,
    }
    _refuse(of_swarms, "is not for --shape, which comes with its own draft and texts")
    from swarm.client.settings import ClientOptions
    from swarm.shapes import bench as shapes
    from swarm.shapes.script import Odds
    from swarm.shapes.show import show

    shape = SHAPES[name]
    amount = options.amount(OF_A_SHAPE)
    settings = shapes.ShapeSettings(
        shape=shape,
        odds=Odds(ALPHA if options.alpha is None else options.alpha),
        peers=options.peers or shape.peers,
        link_ms=LINK_MS if options.link_ms is None else options.link_ms,
        count=amount.texts,
        max_new_tokens=amount.new_tokens,
        plain_tokens=amount.plain_tokens,
        drafting=options.drafter or "model",  # type: ignore[arg-type]  # one of the choices
        client=ClientOptions(
            head=options.head,  # type: ignore[typeddict-item]  # one of the choices
            device=compute.device,
            draft_device=compute.draft_device,
            draft_dtype=compute.draft_dtype,
            draft_vocab=compute.draft_vocab,
        ),
        others=tuple(
            name
            for name, asked in (
                (shapes.AS_BEFORE, options.before),
                (shapes.WITHOUT_HEAD, options.without_head),
            )
            if asked
        ),
    )
    show(run(shapes.measure_shape(settings, quiet=as_ == "json")), as_)


def _drafts(options: BenchOptions) -> tuple[str, ...]:
    """Return the draft models, without repetitions: one at most unless sources are compared."""
    drafts = tuple(dict.fromkeys(locate(each) for each in options.drafts if each != NO_MODEL))
    if drafts and options.no_draft:
        raise click.UsageError("give --draft or --no-draft, not both")
    if len(drafts) > 1 and not options.all_drafts:
        raise click.UsageError("give one --draft, or --drafts to compare several")
    return drafts


def _prompts(options: BenchOptions, count: int) -> "tuple[Prompt, ...]":
    from swarm.demo.problems import problems  # any language model can continue word problems
    from swarm.util.prompt_files import Prompt, read_prompts

    if options.texts and options.prompts:
        raise click.UsageError("give --prompt or --prompts, not both")
    if options.kinds and not options.prompts:
        raise click.UsageError("--kind is for --prompts")
    if options.prompts:
        return read_prompts(options.prompts, options.kinds, count)
    word_problems = islice(problems(seed=6, held_out=True), count)
    return tuple(
        Prompt(text) for text in options.texts or (problem.prompt for problem in word_problems)
    )


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raise UsageError if one of these options was given."""
    for option, value in given.items():
        if value is not None and value is not False and value != ():
            raise click.UsageError(f"{option} {why}")
