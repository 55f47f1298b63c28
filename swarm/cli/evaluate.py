"""``swarm eval``: what verification rules do to answers and to speed."""

from pathlib import Path

import click

from swarm.cli.decoding import RuleName
from swarm.cli.options import (
    FILE,
    ModelName,
    Number,
    bootstrap_option,
    format_options,
    identity_option,
    named_identity,
    named_network,
    network_option,
)
from swarm.demo import locate


@click.command("eval")
@click.option(
    "--model",
    type=ModelName(),
    default="demo-target",
    show_default=True,
    help="The target: a folder or a hub id.",
)
@click.option(
    "--draft",
    type=ModelName(draft=True),
    default="demo-draft",
    show_default=True,
    help="The draft model.",
)
@click.option(
    "--task", default="arithmetic", show_default=True, help="arithmetic, gsm8k or humaneval."
)
@click.option("--data", type=FILE, help="File of questions, for gsm8k and humaneval.")
@click.option(
    "--train", type=FILE, help="File of worked examples to show before each question of gsm8k."
)
@click.option(
    "--run-generated-code", is_flag=True, help="Allow humaneval to run what the model writes."
)
@click.option(
    "--problems", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Questions."
)
@click.option(
    "--rule",
    "rules",
    type=RuleName(),
    multiple=True,
    default=("adaptive",),
    show_default=True,
    help="May be given often.",
)
@click.option(
    "--tau",
    multiple=True,
    type=Number(0, 20),
    help="Also the adaptive rule at this tau; may be given often.",
)
@click.option(
    "--ablate", is_flag=True, help="Also without each signal, and without each class of key tokens."
)
@click.option(
    "--window",
    default=8,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Drafted tokens a loop.",
)
@click.option(
    "--temperature", default=0.0, show_default=True, type=Number(0, 100), help="0 is greedy."
)
@click.option(
    "--margin",
    default=1.0,
    show_default=True,
    type=Number(0, 100),
    help="Points of accuracy that may be lost.",
)
@click.option(
    "--workers",
    default=0,
    type=click.IntRange(0, 256),
    help="Processes; the default is half the cores.",
)
@click.option("--plot", type=FILE, help="Draw accuracy over tokens a loop, as PNG or SVG.")
@identity_option
@bootstrap_option
@network_option
@format_options
def evaluate(
    model: str,
    draft: str,
    task: str,
    data: Path | None,
    train: Path | None,
    run_generated_code: bool,
    problems: int,
    rules: tuple[str, ...],
    tau: tuple[float, ...],
    ablate: bool,
    window: int,
    temperature: float,
    margin: float,
    workers: int,
    plot: Path | None,
    as_: str,
    bootstrap: tuple[str, ...],
    network: str | None,
) -> None:
    """Measure what verification rules do to answers and to speed: in process, or over a swarm with
    --bootstrap."""
    from swarm.eval.tasks import load_task

    asked_task = load_task(
        task, problems, data=data, train=train, run_generated_code=run_generated_code
    )
    from swarm.eval import command

    asked = command.Asked(
        model=locate(model),
        draft=locate(draft),
        rules=rules,
        window=window,
        temperature=temperature,
        tau=tau,
        ablate=ablate,
        margin=margin / 100,
        workers=workers,
        network=named_network(bootstrap, network) if bootstrap else None,
        identity=named_identity(),
        quiet=as_ == "json",
    )
    command.show(asked_task, command.evaluate(asked_task, asked), asked.margin, as_, plot)
