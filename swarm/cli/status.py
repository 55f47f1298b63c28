"""``swarm status``: which peers serve which layers."""

import json

import click

from swarm.cli.options import (
    entrance,
    entrance_options,
    json_option,
    quantization_option,
)
from swarm.cli.params import ModelName
from swarm.demo import locate
from swarm.terminal import console
from swarm.terminal.activity import busy
from swarm.terminal.signals import run


@click.command()
@click.argument("model", type=ModelName(), required=False)
@click.option(
    "--route",
    is_flag=True,
    help="Show the chain of peers that a client would use now, and the runner-up.",
)
@quantization_option
@entrance_options
@json_option
def status(model: str | None, route: bool, quantization: str, as_json: bool) -> None:
    """Show which peers serve which layers, of MODEL or of every model of the swarm."""
    if route and not model:
        raise click.UsageError(
            "--route shows the chain for one model: name it, as in `swarm status MODEL --route`"
        )
    net, identity = entrance()
    from swarm.client.status import look, routes

    located = locate(model) if model else None
    with busy(f"asking the network {net.name} and its peers", quiet=as_json):
        if route and located:
            choices = run(routes(net, located, identity, quantization))
            reports = []
        else:
            choices = []
            reports = run(look(net, located, identity, quantization))
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in choices or reports]))
    elif route:
        console.show_routes(choices)
    else:
        console.show_status(net.name, reports)
