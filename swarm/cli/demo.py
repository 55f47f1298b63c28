"""``swarm demo``: a swarm on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.options import (
    compute_options,
    count_option,
    json_option,
)
from swarm.cli.params import FILE, Number, TextParam
from swarm.terminal.signals import run

if TYPE_CHECKING:
    from swarm.model.compute import ComputeOptions


@click.command()
@count_option("--peers", 4, (1, 8), "Peer processes.")
@click.option(
    "--link-ms",
    default=20.0,
    show_default=True,
    type=Number(0, 1000),
    help="Emulated one-way link delay.",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    type=TextParam(),
    help="Prompt instead of the three problems; may be given several times.",
)
@click.option("--picture", type=FILE, help="Also draw the run as an SVG file.")
@click.option(
    "--serve",
    "served",
    is_flag=True,
    help="Serve the swarm to browsers and OpenAI clients until Ctrl-C, instead.",
)
@count_option("--port", 8000, (0, 65535), "For --serve.")
@compute_options
@json_option
def demo(
    peers: int,
    link_ms: float,
    prompts: tuple[str, ...],
    picture: Path | None,
    served: bool,
    port: int,
    compute: "ComputeOptions",
    as_json: bool,
) -> None:
    """Start a swarm of peer processes on this machine and compare three ways of decoding on it."""
    if served:
        if prompts or picture or as_json:
            raise click.UsageError(
                "--serve makes no comparison: leave out --prompt, --picture and --json"
            )
        from swarm.gateway.demo import serve_demo

        run(serve_demo(peers, link_ms, port, compute))
        return
    from swarm.demo.show import run_demo

    run(run_demo(peers, link_ms, prompts, as_json, picture, compute))
