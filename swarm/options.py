"""Options that ``swarm`` and ``swarm-peer`` share: which network, who one is in it, and which model exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.model.quantization import QUANTIZATIONS

if TYPE_CHECKING:
    from swarm.config import Network
    from swarm.identity import Identity

FILE = click.Path(path_type=Path, dir_okay=False)
bootstrap_option = click.option(
    "--bootstrap", multiple=True, metavar="MADDR", help="Address of a bootstrap node; may be given several times."
)
lan_option = click.option("--lan", is_flag=True, help="Also look for bootstrap nodes on the local network.")

quantization_option = click.option(
    "--quantization",
    default="none",
    show_default=True,
    type=click.Choice(["none", *QUANTIZATIONS]),
    help="How the weights of the layers are stored: as they are, or in 8 or 4 bits. Each is a swarm of its own.",
)


def _keep(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """For `named_network` and `named_identity`."""
    ctx.meta[f"swarm.{param.name}"] = value


def network_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which network: its name as ``network``; the files of a private one are kept for `named_network`."""
    key = "File with the key of a private network; make one with `swarm-peer new-network-key`."
    members = "File of the ids of all who may take part, one a line."
    for option in (
        click.option("--members", type=FILE, callback=_keep, expose_value=False, help=members),
        click.option("--network-key", type=FILE, callback=_keep, expose_value=False, help=key),
        click.option("--network", metavar="NAME", help="Name of the network, if not that of bootstrap.toml."),
    ):
        command = option(command)
    return command


identity_option = click.option(
    "--identity",
    type=FILE,
    callback=_keep,
    expose_value=False,
    help="Key file, made if it is missing: who you are, for a network with a list of members.",
)


def named_identity() -> "Identity | None":
    """Who the command line says that we are."""
    from swarm.identity import Identity

    file = click.get_current_context().meta.get("swarm.identity")
    return Identity.load_or_create(file) if file else None


def named_network(bootstrap: tuple[str, ...], name: str | None) -> "Network":
    """The network that the command line names."""
    from swarm.config import load_network

    files = click.get_current_context().meta
    key_file, members_file = files.get("swarm.network_key"), files.get("swarm.members")
    return load_network(bootstrap=bootstrap, name=name, key_file=key_file, members_file=members_file)


def entered_through(network: "Network", lan: bool) -> "Network":
    """The network, if there is a way in: that it has none is said before anything heavy is loaded. With ``lan`` one is
    also looked for on the local network."""
    from swarm.errors import NoBootstrap

    if lan:
        from swarm.network.lan import search

        network = search(network)
    if not network.bootstrap:
        raise NoBootstrap()
    return network
