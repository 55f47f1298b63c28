"""``python -m swarm.sim``: swarms of thousands, and how long the planner takes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from swarm.chain.book import NEAREST
from swarm.cli.options import json_option
from swarm.errors import SwarmError
from swarm.sim.planner import benchmark, in_words
from swarm.sim.report import markdown
from swarm.sim.scenario import Scenario, run

SIZES = (100, 1_000, 10_000)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--peers",
    multiple=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="May be given often.",
)
@click.option(
    "--layers", default=80, show_default=True, type=click.IntRange(1, 1000), help="Of the model."
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
    "--remember", default=NEAREST, show_default=True, help="Near peers that a client pings again."
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for pictures.",
)
@json_option
@click.pass_context
def main(
    context: click.Context,
    peers: tuple[int, ...],
    layers: int,
    seed: int,
    clients: int,
    departing: float,
    remember: int,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Let peers come, serve a model, leave all at once and heal; print what was measured as tables.

    Without --peers: for 100, 1,000 and 10,000 peers.
    """
    if context.invoked_subcommand:
        return
    stories = []
    for count in peers or SIZES:
        scenario = Scenario(
            count,
            seed=seed,
            model_layers=layers,
            clients=clients,
            departing=departing,
            remembered=remember,
        )
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
    """Print how long a plan over so many RECORDS takes; 100, 1,000 and 10,000 without."""
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
