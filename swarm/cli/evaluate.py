"""``swarm eval``: the effect of verification rules on answers and speed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from swarm.cli.decoding import RuleName
from swarm.cli.grouping import grouped
from swarm.cli.options import (
    bootstrap_option,
    compute_options,
    count_option,
    format_options,
    identity_option,
    named_identity,
    named_network,
    network_option,
)
from swarm.cli.params import FILE, ModelName, Number
from swarm.demo import locate

if TYPE_CHECKING:
    from swarm.model.compute import ComputeOptions


@dataclass(frozen=True)
class TaskOptions:
    """Which questions the models answer."""

    task: str
    problems: int
    data: Path | None
    train: Path | None
    run_generated_code: bool
    new_tokens: int | None


@dataclass(frozen=True)
class ComparisonOptions:
    """Which models and rules are compared, and how."""

    model: str
    draft: str
    rules: tuple[str, ...]
    tau: tuple[float, ...]
    ablate: Literal["groups", "each"] | None
    window: int
    temperature: float
    margin: float  # percentage points
    workers: int


@click.command("eval")
@click.option(
    "--model",
    type=ModelName(),
    default="demo-target",
    show_default=True,
    help="Target model: a folder, a GGUF file, or a hub id.",
)
@click.option(
    "--draft",
    type=ModelName(draft=True),
    default="demo-draft",
    show_default=True,
    help="Draft model.",
)
@click.option(
    "--task",
    default="arithmetic",
    show_default=True,
    help="arithmetic, gsm8k, humaneval, ifeval or spec_bench.",
)
@click.option("--data", type=FILE, help="File of questions; arithmetic makes its own.")
@click.option(
    "--train", type=FILE, help="File of worked examples that precede each question of gsm8k."
)
@click.option(
    "--run-generated-code", is_flag=True, help="Allow humaneval to run code of the model."
)
@count_option("--problems", 100, (1, 100_000), "Questions.")
@click.option(
    "--new-tokens",
    type=click.IntRange(1, 100_000),
    help="Tokens of an answer at most; the default depends on the task.",
)
@click.option(
    "--rule",
    "rules",
    type=RuleName(),
    multiple=True,
    default=("adaptive",),
    show_default=True,
    help="Rule to compare; may be given several times.",
)
@click.option(
    "--tau",
    multiple=True,
    type=Number(0, 20),
    help="Also compare the adaptive rule at this tau; may be given several times.",
)
@click.option(
    "--ablate",
    type=click.Choice(["groups", "each"]),
    help="Also compare the adaptive rule without all signals, all classes of key tokens, and both;"
    " or without each of them, too.",
)
@count_option("--window", 8, (1, 64), "Drafted tokens per loop.")
@click.option(
    "--temperature", default=0.0, show_default=True, type=Number(0, 100), help="0 is greedy."
)
@click.option(
    "--margin",
    default=1.0,
    show_default=True,
    type=Number(0, 100),
    help="Percentage points of accuracy that may be lost.",
)
@click.option(
    "--workers",
    default=0,
    type=click.IntRange(0, 256),
    help="Processes; the default is half of the cores.",
)
@click.option(
    "--study",
    type=FILE,
    help="Instead, study what single misses do to the target's text; FILE keeps what was found.",
)
@click.option(
    "--probes",
    default=0.5,
    show_default=True,
    type=Number(0, 1),
    help="Share of the misses that cost at most 1 nat whose consequences a study tries; of dearer"
    " ones, a tenth of it.",
)
@click.option("--plot", type=FILE, help="Draw accuracy over tokens per loop, as PNG or SVG.")
@compute_options
@identity_option
@bootstrap_option
@network_option
@format_options
@grouped(TaskOptions, "task")
@grouped(ComparisonOptions, "comparison")
def evaluate(
    task: TaskOptions,
    comparison: ComparisonOptions,
    compute: "ComputeOptions",
    study: Path | None,
    probes: float,
    plot: Path | None,
    as_: str,
    bootstrap: tuple[str, ...],
    network: str | None,
) -> None:
    """Measure the effect of verification rules on answers and speed.

    Runs in this process, or over a swarm with --bootstrap.
    """
    from swarm.eval.tasks import load_task

    loaded = load_task(
        task.task,
        task.problems,
        data=task.data,
        train=task.train,
        run_generated_code=task.run_generated_code,
    )
    if task.new_tokens:
        loaded = replace(loaded, max_new_tokens=task.new_tokens)
    from swarm.eval import command

    settings = command.EvalSettings(
        model=locate(comparison.model),
        draft=locate(comparison.draft),
        rules=comparison.rules,
        window=comparison.window,
        temperature=comparison.temperature,
        tau=comparison.tau,
        ablate=comparison.ablate,
        margin=comparison.margin / 100,
        workers=comparison.workers,
        network=named_network(bootstrap, network) if bootstrap else None,
        identity=named_identity(),
        quiet=as_ == "json",
        compute=compute,
    )
    if study:
        command.study(loaded, settings, study, probes, as_)
        return
    command.show(loaded, command.evaluate(loaded, settings), settings.margin, as_, plot)
