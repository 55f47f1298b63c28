"""``python -m swarm.sim``: swarms of thousands, and how long the planner takes."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from swarm.chain.book import NEAREST
from swarm.cli.grouping import grouped
from swarm.cli.options import json_option
from swarm.errors import SwarmError
from swarm.sim.planner import benchmark, in_words
from swarm.sim.report import markdown
from swarm.sim.scenario import Scenario, run

SIZES = (100, 1_000, 10_000)


@dataclass(frozen=True)
class ScenarioOptions:
    """The fields of a `Scenario` that are options."""

    model_layers: int
    seed: int
    clients: int
    departing: float
    remembered: int


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--peers",
    multiple=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Number of peers; may be given several times.",
)
@click.option(
    "--layers",
    "model_layers",
    default=80,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Of the model.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--clients", default=200, show_default=True, type=click.IntRange(0, 10_000))
@click.option(
    "--departing",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share that leaves.",
)
@click.option(
    "--remember",
    "remembered",
    default=NEAREST,
    show_default=True,
    help="Near peers that a client pings again.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for plots.",
)
@json_option
@click.pass_context
@grouped(ScenarioOptions, "options")
def main(
    context: click.Context,
    peers: tuple[int, ...],
    options: ScenarioOptions,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Let peers join, serve a model, leave all at once and heal; print the results as tables.

    Without --peers: for 100, 1,000 and 10,000 peers.
    """
    if context.invoked_subcommand:
        return
    stories = []
    for count in peers or SIZES:
        scenario = Scenario(count, **asdict(options))
        stories.append(run(scenario, lambda share, count=count: _progress(count, share)))  # type: ignore[misc]
    if sys.stderr.isatty():
        click.echo(err=True)
    click.echo(json.dumps([asdict(story) for story in stories]) if as_json else markdown(stories))
    if plots:
        from swarm.sim.plots import plot

        plot(stories, plots)


@main.command()
@click.option("--layers", default=80, show_default=True, type=click.IntRange(1, 1000))
@click.argument("records", nargs=-1, type=click.IntRange(1, 1_000_000))
@json_option
def planner(records: tuple[int, ...], layers: int, as_json: bool) -> None:
    """Print how long a plan over RECORDS records takes; by default 100, 1,000 and 10,000."""
    timings = benchmark(records or SIZES, layers)
    click.echo(json.dumps([asdict(timing) for timing in timings]) if as_json else in_words(timings))


def _progress(peers: int, share: float) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{peers:>7,} peers {share:>4.0%}", err=True, nl=False)


if __name__ == "__main__":
    try:
        main()
    except SwarmError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
