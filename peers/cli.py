"""The command ``swarm-peer``. Heavy libraries are imported inside its commands."""

if __name__ == "__main__":  # first of all, and then under its own name
    from peers import start

    start.main()

import asyncio
import contextlib
import ipaddress
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peers.command_options import (
    PEER_KEY,
    NodeOptions,
    ShareOptions,
    announce_option,
    key_option,
    node_options,
    share_options,
)
from peers.events import PeerEvent
from peers.ops.service import LEAVE_S, install_service, uninstall_service
from peers.stopping import run_until_stopped
from swarm import __version__
from swarm.cli.completion import completion
from swarm.cli.main import EXIT_CODES, guard
from swarm.cli.options import (
    bootstrap_option,
    entered_through,
    grace_option,
    json_option,
    lan_option,
    logging_options,
    named_network,
    network_option,
)
from swarm.cli.params import FILE, ModelName, Number
from swarm.demo import locate
from swarm.errors import ExitCode
from swarm.terminal import console, signals, stdio
from swarm.terminal.activity import activity, busy
from swarm.util.importing import uncollected

if TYPE_CHECKING:
    from peers.options import PeerOptions
    from swarm.config import Network

OPEN_TO_ALL = (
    "This network is open: anyone may join it, and peers that serve layers can read what passes"
    " through them. For a network of your own, make a key with `swarm-peer new-network-key FILE`"
    " and give it to all members (--network-key FILE)."
)


@click.group(
    "swarm-peer", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="swarm-peer")
@logging_options
def app() -> None:
    """Lend this computer to a swarm."""
    console.settle_colours()


@app.command()
@click.argument("model", type=ModelName())
@share_options
@node_options(0, lan_option)
@announce_option("How others reach this peer, if not by the address it sees.")
@grace_option(
    5.0,
    "Seconds that running sessions get when this peer leaves, before they have to go on with"
    " another one.",
)
@click.option(
    "--gateway-clients",
    default=4,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Clients that one gateway may ask for at most; 1 takes every gateway for one client.",
)
@click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True)  # emulated one-way delay
@click.option("--scripted", is_flag=True, hidden=True)  # for `swarm bench --shape`
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line for everything that happens.",
)
def join(
    model: str,
    share: ShareOptions,
    node: NodeOptions,
    announce: str | None,
    grace: float,
    gateway_clients: int,
    link_ms: float,
    scripted: bool,
    as_json: bool,
) -> None:
    """Serve layers of MODEL (a folder, a GGUF file, or a hub id) to the swarm.

    How many fit is worked out before anything is loaded. SIGTERM, Ctrl-C and the end of its
    terminal let the peer leave in order; a second one ends it at once.
    """
    network = entered_through(node.named_network(), node.lan)
    with uncollected():
        import torch

        from peers.options import PeerOptions
        from swarm.model.device import choose_device
        from swarm.model.quantization import named

    options = PeerOptions(
        model=locate(model),
        layers=share.layers,
        network=network,
        key_file=node.key_file(PEER_KEY),
        host=node.host,
        port=node.port,
        announce=announce,
        device=choose_device(share.device),
        dtype=None if share.dtype == "auto" else getattr(torch, share.dtype),
        quantization=named(share.quantization),
        cache_tokens=share.cache_tokens,
        memory=share.memory,
        max_layers=share.max_layers,
        grace_s=grace,
        gateway_clients=gateway_clients,
        threads=share.threads,
        head=share.head,
        link_ms=link_ms,
        metrics=node.metrics,
        scripted=scripted,
    )
    _serve(options, model, node.until_eof, as_json)


def _serve(options: "PeerOptions", model: str, until_eof: bool, as_json: bool) -> None:
    """Run a peer, and print what happens.

    Args:
        model: as the operator named it.
    """
    with uncollected():
        from peers.ops.progress import loading_bar
        from peers.server import serve

    network = options.network

    def show(event: PeerEvent) -> None:
        stdio.say(json.dumps(event.as_dict()) if as_json else event.sentence)

    async def run(stop: asyncio.Event, up: Callable[[], None]) -> None:
        with activity(quiet=as_json) as waiting_for, loading_bar(quiet=as_json) as loaded:

            def emit(event: PeerEvent) -> None:
                waiting_for("")
                if event.event == "serving":
                    up()
                show(event)

            def progress(done_bytes: int, total_bytes: int) -> None:
                waiting_for("")
                loaded(done_bytes, total_bytes)

            waiting_for(f"reading {model} and entering the network {network.name}")
            await serve(options, stop, emit, progress)

    if network.is_open:
        show(PeerEvent("open_network", OPEN_TO_ALL, {"network": network.name}))
    run_until_stopped(run, until_eof, LEAVE_S + options.grace_s)


@app.command()
@node_options(
    31337,
    click.option(
        "--lan",
        is_flag=True,
        help="Let computers on the local network find this node without its address.",
    ),
)
@json_option
def bootstrap(node: NodeOptions, as_json: bool) -> None:
    """Run a bootstrap node: the address by which others find the swarm.

    It serves no layers and needs no GPU.
    """
    from swarm.identity import Identity
    from swarm.keylock import held

    network = node.named_network()
    with uncollected():
        from peers.ops.health_server import monitored
        from peers.ops.metrics import NodeMetrics
        from swarm.network.dht.directory import Directory
        from swarm.network.nat.dialback import answering
        from swarm.network.nat.mdns import announced
        from swarm.network.nat.relay_node import join_and_relay

    key_file = node.key_file("bootstrap.key")
    identity = Identity.load_or_create(key_file) if key_file else Identity.generate()
    network.check_member(identity.peer_id)

    async def enter() -> Directory:
        where: Any = {"host": node.host, "port": node.port}
        if ipaddress.IPv4Address(node.host).is_loopback:  # who gets here needs no relay
            return await Directory.join(identity, network, **where, bootstrap_node=True)
        return await join_and_relay(identity, network, **where)

    async def run(stop: asyncio.Event, up: Callable[[], None]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            directory = await stack.enter_async_context(await enter())
            await stack.enter_async_context(answering(directory.daemon))
            if node.lan:
                await stack.enter_async_context(announced(network.name, directory.addresses))
            metrics_url = None
            if node.metrics:
                monitor = monitored(NodeMetrics(directory), node.metrics)
                metrics_url = await stack.enter_async_context(monitor)
            up()
            _show_node(network, directory.addresses, metrics_url, as_json)
            await stop.wait()

    with held(identity.file, alone=True):
        run_until_stopped(run, node.until_eof, LEAVE_S)


def _show_node(
    network: "Network", addresses: Sequence[str], metrics_url: str | None, as_json: bool
) -> None:
    """Print how others join through a bootstrap node.

    Args:
        addresses: of the node.
        metrics_url: where its metrics are; None if it serves none.
    """
    if as_json:
        facts = {"network": network.name, "addresses": addresses}
        stdio.say(json.dumps(facts | ({"metrics": metrics_url} if metrics_url else {})))
        return
    stdio.say(f"A bootstrap node of the network {network.name} is up. Others join with one of:")
    for address in addresses:
        stdio.say(f"  --bootstrap {address}")
    if metrics_url:
        stdio.say(f"Metrics are at {metrics_url}.")
    if network.is_open:
        stdio.say(OPEN_TO_ALL)


@app.command()
@click.argument("file", type=FILE)
@json_option
def new_network_key(file: Path, as_json: bool) -> None:
    """Make the key of a private network and write it to FILE.

    Anyone who has it may join; give it to members over a safe channel only.
    """
    from swarm.config import create_network_key

    create_network_key(file)
    if as_json:
        click.echo(json.dumps({"file": str(file)}))
        return
    click.echo(
        f"{file} holds a new network key. Every member names it: --network-key,"
        " SWARM_NETWORK_KEY_FILE, or"
    )
    click.echo("network_key_file in bootstrap.toml.")


@app.command()
@bootstrap_option
@network_option
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), help="The port that you mean to serve on."
)
@announce_option("The address by which others are to reach this computer.")
@key_option
@json_option
def doctor(
    bootstrap: tuple[str, ...],
    network: str | None,
    port: int,
    announce: str | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Check whether this computer can serve, and say what to do if it cannot.

    A network with a list of members is entered with the key that the peer here would have.
    """
    from peers.ops.doctor import examine, is_well, show
    from swarm.config import state_dir

    key_file = key or state_dir() / PEER_KEY
    with busy("looking at this computer and its network", quiet=as_json):
        findings = signals.run(
            examine(lambda: named_network(bootstrap, network), port, announce, key_file)
        )
    if as_json:
        click.echo(
            json.dumps({"ok": is_well(findings), "findings": [asdict(each) for each in findings]})
        )
    else:
        show(findings)
    if not is_well(findings):
        sys.exit(ExitCode.FAILED)


for command in (install_service, uninstall_service, completion):
    app.add_command(command)


def main() -> None:
    """Run the command line; `peers.start` is the console script."""
    sys.exit(guard(app, "swarm-peer"))
