"""Options that ``swarm`` and ``swarm-peer`` share: model, network, identity, and output."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.grouping import option_group
from swarm.cli.params import FILE, DeviceName, DraftVocab, Number
from swarm.model.compute import (
    DEVICE_NAMES,
    DRAFT_DTYPES,
    MIN_DRAFT_VOCAB,
    ComputeOptions,
)
from swarm.model.quantization import QUANTIZATIONS
from swarm.util import logs

if TYPE_CHECKING:
    from swarm.config import Network
    from swarm.identity import Identity

MAX_TOKENS = 1 << 20  # of one text, as in `swarm.wire`, which takes long to import


def count_option(
    name: str, default: int, between: tuple[int, int | None], text: str
) -> Callable[..., Any]:
    """An option that is a number ``between`` two others, both included; None is no bound."""
    return click.option(
        name, default=default, show_default=True, type=click.IntRange(*between), help=text
    )


def port_option(default: int) -> Callable[..., Any]:
    """The port that a program listens on."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="Port to listen on; 0 takes any free one.",
    )


def grace_option(default_s: float, text: str) -> Callable[..., Any]:
    """How long what runs may go on when a program is told to stop, as ``grace``."""
    return click.option(
        "--grace", default=default_s, show_default=True, type=Number(0, 3600), help=text
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
)
bootstrap_option = click.option(
    "--bootstrap",
    multiple=True,
    metavar="MADDR",
    help="Address of a bootstrap node; may be given several times.",
)
lan_option = click.option(
    "--lan", is_flag=True, help="Also look for bootstrap nodes on the local network."
)
audit_option = click.option(
    "--audit",
    default=0.01,
    show_default=True,
    type=Number(0, 1),
    help="Share of texts that other peers compute again, to notice peers that lie; 0 never does.",
)
head_option = click.option(
    "--head",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "local", "peer"]),
    help="Who holds the model's LM head: this computer, or the last peer; auto: here, if it fits.",
)
quantization_option = click.option(
    "--quantization",
    default="none",
    show_default=True,
    type=click.Choice(["none", *QUANTIZATIONS]),
    help="Store the layers' weights as they are, or in 8 or 4 bits. Each is a swarm of its own.",
)


compute_options = option_group(
    ComputeOptions,
    "compute",
    click.option(
        "--device",
        type=DeviceName(),
        default="auto",
        show_default=True,
        help=f"Where the client's own part of the model is computed: {DEVICE_NAMES}.",
    ),
    click.option(
        "--draft-device",
        type=DeviceName(),
        default="auto",
        show_default=True,
        help="Where the draft model is computed; auto is the same as --device.",
    ),
    click.option(
        "--draft-dtype",
        type=click.Choice(DRAFT_DTYPES),
        default="auto",
        show_default=True,
        help="Weights of the draft model; auto is the fastest here. The text stays the same.",
    ),
    click.option(
        "--draft-vocab",
        type=DraftVocab(),
        default="auto",
        show_default=True,
        help=(
            "Tokens that the draft model's head computes; auto are those that MODEL has, too, a"
            f" number (from {MIN_DRAFT_VOCAB}) the most frequent of these."
        ),
    ),
)
"""Adds where a client computes, as the argument ``compute``."""


def logging_options(group: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of logging to a group, which set it up before the group does anything."""

    @functools.wraps(group)
    def set_up_first(
        *arguments: Any, verbose: bool, log_level: str, log_format: str, **others: Any
    ) -> Any:
        logs.set_up("debug" if verbose else log_level, log_format)
        return group(*arguments, **others)

    command: Callable[..., Any] = set_up_first
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(logs.FORMATS),
            default="text",
            show_default=True,
            envvar="SWARM_LOG_FORMAT",
            show_envvar=True,
            help="Lines for people, or one JSON object a line.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(logs.LEVELS),
            default="warning",
            show_default=True,
            envvar="SWARM_LOG_LEVEL",
            show_envvar=True,
            help="Log messages of at least this level to standard error.",
        ),
        click.option(
            "-v", "--verbose", is_flag=True, help="Log all that happens: --log-level debug."
        ),
    ):
        command = option(command)
    return command


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep the value for `named_network`, `named_identity` and `_format`."""
    ctx.meta[f"swarm.{param.name}"] = value


def format_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the format of a report, as the argument ``as_``: table, markdown or json."""
    formats = click.Choice(["table", "markdown", "json"])
    for option in (
        click.option(
            "--json",
            is_flag=True,
            is_eager=True,
            callback=_keep,
            expose_value=False,
            help="The same as --format json.",
        ),
        click.option(
            "--format",
            "as_",
            default="table",
            show_default=True,
            type=formats,
            callback=_format,
            help="How the report is printed.",
        ),
    ):
        command = option(command)
    return command


def _format(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return "json" if ctx.meta.get("swarm.json") else value


def network_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a network: its name as ``network``, its files kept for `named_network`."""
    key = "File with the key of a private network; make one with `swarm-peer new-network-key`."
    members = "File of the ids of all members, one per line."
    for option in (
        click.option("--members", type=FILE, callback=_keep, expose_value=False, help=members),
        click.option("--network-key", type=FILE, callback=_keep, expose_value=False, help=key),
        click.option(
            "--network", metavar="NAME", help="Name of the network, if not that of bootstrap.toml."
        ),
    ):
        command = option(command)
    return command


identity_option = click.option(
    "--identity",
    type=FILE,
    callback=_keep,
    expose_value=False,
    help="Key file, made if missing: your identity in a network with a list of members.",
)


def entrance_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of entering a network as a client, which `entrance` returns."""

    @functools.wraps(command)
    def entering(
        *arguments: Any, bootstrap: tuple[str, ...], network: str | None, lan: bool, **others: Any
    ) -> Any:
        click.get_current_context().meta["swarm.entrance"] = bootstrap, network, lan
        return command(*arguments, **others)

    decorated: Callable[..., Any] = entering
    for option in (lan_option, network_option, bootstrap_option, identity_option):
        decorated = option(decorated)
    return decorated


def entrance() -> "tuple[Network, Identity | None]":
    """Return the network and the identity that the command line names.

    Raises:
        NoBootstrap: if there is no way into the network.
    """
    bootstrap, network, lan = click.get_current_context().meta["swarm.entrance"]
    return entered_through(named_network(bootstrap, network), lan), named_identity()


def named_identity() -> "Identity | None":
    """Return the identity that the command line names."""
    from swarm.identity import Identity

    file = click.get_current_context().meta.get("swarm.identity")
    return Identity.load_or_create(file) if file else None


def named_network(bootstrap: tuple[str, ...], name: str | None) -> "Network":
    """Return the network that the command line names."""
    from swarm.config import load_network

    files = click.get_current_context().meta
    return load_network(
        bootstrap=bootstrap,
        name=name,
        key_file=files.get("swarm.network_key"),
        members_file=files.get("swarm.members"),
    )


def entered_through(network: "Network", lan: bool) -> "Network":
    """Return the network if it has a bootstrap node, before anything heavy is loaded.

    Args:
        lan: whether to look for bootstrap nodes on the local network, too.

    Raises:
        NoBootstrap: if there is no way into the network.
    """
    from swarm.errors import NoBootstrap

    if lan:
        from swarm.network.nat.mdns import search

        network = search(network)
    if not network.bootstrap:
        raise NoBootstrap()
    return network
