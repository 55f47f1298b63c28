"""Options that commands of ``swarm-peer`` share: each group is one argument of the command."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peers.params import Bytes, HostPort, Ipv4, LayerSpan, WhereToListen
from swarm.cli.grouping import option_group
from swarm.cli.options import (
    bootstrap_option,
    named_network,
    network_option,
    port_option,
    quantization_option,
)

if TYPE_CHECKING:
    from peers.ops.health_server import ListenAddress
    from swarm.config import Network

PEER_KEY = "peer.key"  # in the state folder
DTYPES = ("float32", "bfloat16", "float16")

key_option = click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Key file; the default is in the user's data folder.",
)


@dataclass(frozen=True)
class NodeOptions:
    """Where a program listens, who it is, and how it enters its network.

    Attributes:
        key: the file of its key; None for the default one.
        until_eof: it ends with its standard input.
        lan: it looks for others on the local network, or lets them find it.
    """

    host: str
    port: int
    metrics: "ListenAddress | None"
    key: Path | None
    ephemeral: bool
    until_eof: bool
    bootstrap: tuple[str, ...]
    network: str | None
    lan: bool

    def named_network(self) -> "Network":
        """Return the network that the command line names."""
        return named_network(self.bootstrap, self.network)

    def key_file(self, default: str) -> Path | None:
        """Return the file of the key, by default one in the state folder; None if ephemeral."""
        from swarm.config import state_dir

        return None if self.ephemeral else self.key or state_dir() / default


def node_options(port: int, lan: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command that runs a node, which gets `NodeOptions` as ``node``.

    Args:
        port: the default.
        lan: what ``--lan`` means.
    """
    return option_group(
        NodeOptions,
        "node",
        click.option(
            "--host",
            type=Ipv4(),
            default="0.0.0.0",
            show_default=True,
            help="Address to listen on; 0.0.0.0 is all.",
        ),
        port_option(port),
        click.option(
            "--metrics",
            type=WhereToListen(),
            help=(
                "Answer /metrics (for Prometheus), /health and /ready there; a port alone is for"
                " this computer only."
            ),
        ),
        key_option,
        click.option("--ephemeral", is_flag=True, help="A new identity for this run only."),
        click.option(
            "--until-eof", is_flag=True, help="Stop when standard input closes.", hidden=True
        ),
        bootstrap_option,
        network_option,
        lan,
    )


@dataclass(frozen=True)
class ShareOptions:
    """How much of this computer is lent, and how it computes."""

    layers: tuple[int, int] | None
    max_layers: int | None
    memory: int | None
    cache_tokens: int | None
    device: str
    dtype: str
    quantization: str
    threads: int | None
    head: bool | None


share_options = option_group(
    ShareOptions,
    "share",
    click.option(
        "--layers",
        type=LayerSpan(),
        help=(
            "The layers to serve, such as 0:4 for the first four; without, those that the swarm"
            " needs most, and others when it needs them more."
        ),
    ),
    click.option(
        "--max-layers",
        type=click.IntRange(1, 1 << 20),
        help="Serve no more layers than this, if more would fit.",
    ),
    click.option(
        "--memory",
        type=Bytes(),
        help="Memory to use at most, such as 4GB; the default is what is free.",
    ),
    click.option(
        "--cache-tokens",
        type=click.IntRange(1, 1 << 40),
        help=(
            "Tokens of all sessions together for which this peer keeps keys and values; the default"
            " is 65536, or what there is room for."
        ),
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
    ),
    click.option(
        "--dtype",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", *DTYPES]),
        help=(
            "What the layers compute in; auto is the checkpoint's on a GPU, and on a CPU float32,"
            " or bfloat16 for weights in bfloat16 where that measures faster."
        ),
    ),
    quantization_option,
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="CPU threads; the default is what measures fastest.",
    ),
    click.option(
        "--head/--no-head",
        default=None,
        help=(
            "Beside the model's last layer, also hold its LM head, for clients that have no room"
            " for one; the default is to do so where there is room."
        ),
    ),
)


def announce_option(text: str) -> Callable[..., Any]:
    """The address by which others reach this computer, as ``announce``."""
    return click.option("--announce", type=HostPort(), help=text)
