"""``swarm-peer``: what the owner of a computer types.

Heavy libraries are imported inside the commands.
"""

if __name__ == "__main__":  # first of all, and then under its own name
    from peers import start

    start.main()

import asyncio
import contextlib
import ipaddress
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peers.events import News
from peers.ops.service import LEAVE_S, install_service, uninstall_service
from peers.params import Bytes, HostPort, Ipv4, LayerSpan, WhereToListen
from peers.stopping import run_until_stopped
from swarm import __version__
from swarm.cli.completion import completion
from swarm.cli.main import EXIT_CODES, guard
from swarm.cli.options import (
    FILE,
    ModelName,
    Number,
    bootstrap_option,
    entered_through,
    json_option,
    lan_option,
    logging_options,
    named_network,
    network_option,
    quantization_option,
)
from swarm.demo import locate
from swarm.errors import ExitCode
from swarm.terminal import console, signals, stdio
from swarm.terminal.activity import activity, busy

if TYPE_CHECKING:
    from peers.ops.health_server import Where

DTYPES = ("float32", "bfloat16", "float16")
OPEN_TO_ALL = (
    "This network is open: anybody may join it, and whoever serves layers can read what passes"
    " through them. For one of your own, make a key with `swarm-peer new-network-key FILE` and give"
    " it to all members (--network-key FILE)."
)


host_option = click.option(
    "--host",
    type=Ipv4(),
    default="0.0.0.0",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is all.",
)
key_option = click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Key file; the default is in the user's data folder.",
)
metrics_option = click.option(
    "--metrics",
    type=WhereToListen(),
    help=(
        "Answer /metrics (for Prometheus), /health and /ready there; a port alone is for this"
        " computer only."
    ),
)
ephemeral_option = click.option(
    "--ephemeral", is_flag=True, help="A new identity for this run only."
)
until_eof_option = click.option(
    "--until-eof", is_flag=True, help="Stop when standard input closes.", hidden=True
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
@click.option(
    "--layers",
    type=LayerSpan(),
    help=(
        "The layers to serve, such as 0:4 for the first four; without, those that the swarm needs"
        " most, and others when it needs them more."
    ),
)
@click.option(
    "--max-layers",
    type=click.IntRange(1, 1 << 20),
    help="Serve no more layers than this, if more would fit.",
)
@click.option(
    "--memory",
    type=Bytes(),
    help="Memory to use at most, such as 4GB; the default is what is free.",
)
@host_option
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes any."
)
@click.option(
    "--announce", type=HostPort(), help="How others reach this peer, if not by the address it sees."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", default="auto", show_default=True, type=click.Choice(["auto", *DTYPES]))
@quantization_option
@click.option(
    "--cache-tokens",
    type=click.IntRange(1, 1 << 40),
    help=(
        "Tokens of all sessions together for which this peer keeps keys and values; the default is"
        " 65536, or what there is room for."
    ),
)
@click.option(
    "--grace",
    default=5.0,
    show_default=True,
    type=Number(0, 3600),
    help=(
        "Seconds that running sessions get when this peer leaves, before they have to go on with"
        " another one."
    ),
)
@click.option(
    "--gateway-clients",
    default=4,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Clients that one gateway may ask for at most; 1 takes every gateway for one client.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads; the default is what measures fastest.",
)
@metrics_option
@click.option("--link-ms", default=0.0, type=Number(0, 1000), hidden=True)  # emulated one-way delay
@key_option
@ephemeral_option
@until_eof_option
@bootstrap_option
@network_option
@lan_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line for everything that happens.",
)
def join(
    model: str,
    layers: tuple[int, int] | None,
    max_layers: int | None,
    memory: int | None,
    host: str,
    port: int,
    announce: str | None,
    device: str,
    dtype: str,
    quantization: str,
    cache_tokens: int | None,
    grace: float,
    gateway_clients: int,
    threads: int | None,
    metrics: "Where | None",
    link_ms: float,
    key: Path | None,
    ephemeral: bool,
    until_eof: bool,
    bootstrap: tuple[str, ...],
    network: str | None,
    lan: bool,
    as_json: bool,
) -> None:
    """Serve layers of MODEL (a local folder or a hub id) to the swarm.

    How many fit is worked out before anything is loaded. SIGTERM, Ctrl-C and the end of its
    terminal let the peer leave in order; a second one ends it at once.
    """
    from swarm.config import state_dir

    net = entered_through(named_network(bootstrap, network), lan)
    import torch

    from peers.compute.device import choose_device
    from peers.ops.progress import loading_bar
    from peers.options import Options
    from peers.server import serve
    from swarm.model.quantization import named

    options = Options(
        model=locate(model),
        layers=layers,
        network=net,
        key_file=None if ephemeral else key or state_dir() / "peer.key",
        host=host,
        port=port,
        announce=announce,
        device=choose_device(device),
        dtype=None if dtype == "auto" else getattr(torch, dtype),
        quantization=named(quantization),
        cache_tokens=cache_tokens,
        memory=memory,
        max_layers=max_layers,
        grace_s=grace,
        gateway_clients=gateway_clients,
        threads=threads,
        link_ms=link_ms,
        metrics=metrics,
    )

    def say(news: News) -> None:
        stdio.say(json.dumps(news.as_dict()) if as_json else news.sentence)

    if net.is_open:
        say(News("open_network", OPEN_TO_ALL, {"network": net.name}))

    async def run(stop: asyncio.Event, up: Callable[[], None]) -> None:
        with activity(quiet=as_json) as waiting_for, loading_bar(quiet=as_json) as loaded:

            def tell(news: News) -> None:
                waiting_for("")
                if news.event == "serving":
                    up()
                say(news)

            def progress(done_bytes: int, total_bytes: int) -> None:
                waiting_for("")
                loaded(done_bytes, total_bytes)

            waiting_for(f"reading {model} and entering the network {net.name}")
            await serve(options, stop, tell, progress)

    run_until_stopped(run, until_eof, LEAVE_S + grace)


@app.command()
@host_option
@click.option(
    "--port",
    default=31337,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 takes any.",
)
@json_option
@metrics_option
@key_option
@ephemeral_option
@until_eof_option
@bootstrap_option
@network_option
@click.option(
    "--lan",
    is_flag=True,
    help="Let computers on the local network find this node without its address.",
)
def bootstrap(
    host: str,
    port: int,
    as_json: bool,
    metrics: "Where | None",
    key: Path | None,
    ephemeral: bool,
    until_eof: bool,
    bootstrap: tuple[str, ...],
    network: str | None,
    lan: bool,
) -> None:
    """Run a bootstrap node: the address by which others find the swarm.

    It serves no layers and needs no GPU.
    """
    from swarm.config import state_dir
    from swarm.identity import Identity
    from swarm.keylock import held

    net = named_network(bootstrap, network)
    from peers.ops.health_server import monitored
    from peers.ops.metrics import NodeMetrics
    from swarm.network.dht.directory import Directory
    from swarm.network.nat.dialback import answering
    from swarm.network.nat.mdns import announced
    from swarm.network.nat.relay_node import join_and_relay

    identity = (
        Identity.generate()
        if ephemeral
        else Identity.load_or_create(key or state_dir() / "bootstrap.key")
    )
    net.check_member(identity.peer_id)

    async def enter() -> Directory:
        if ipaddress.IPv4Address(host).is_loopback:  # whoever gets here needs no relay
            return await Directory.join(identity, net, host=host, port=port, bootstrap_node=True)
        return await join_and_relay(identity, net, host=host, port=port)

    async def run(stop: asyncio.Event, up: Callable[[], None]) -> None:
        async with (
            await enter() as directory,
            answering(directory.daemon),
            announced(net.name, directory.addresses) if lan else contextlib.nullcontext(),
            (
                monitored(NodeMetrics(directory), metrics) if metrics else contextlib.nullcontext()
            ) as watched_at,
        ):
            up()
            if as_json:
                facts = {"network": net.name, "addresses": directory.addresses}
                stdio.say(json.dumps(facts | ({"metrics": watched_at} if watched_at else {})))
            else:
                stdio.say(
                    f"A bootstrap node of the network {net.name} is up. Others join with one of:"
                )
                for address in directory.addresses:
                    stdio.say(f"  --bootstrap {address}")
                if watched_at:
                    stdio.say(f"Metrics are at {watched_at}.")
                if net.is_open:
                    stdio.say(OPEN_TO_ALL)
            await stop.wait()

    with held(identity.file, alone=True):
        run_until_stopped(run, until_eof, LEAVE_S)


@app.command()
@click.argument("file", type=FILE)
@json_option
def new_network_key(file: Path, as_json: bool) -> None:
    """Make the key of a private network, in FILE.

    Whoever has it may join; give it to members over a safe way only.
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
@click.option(
    "--announce",
    type=HostPort(),
    help="How others shall reach this computer, if you mean to say so.",
)
@json_option
def doctor(
    bootstrap: tuple[str, ...], network: str | None, port: int, announce: str | None, as_json: bool
) -> None:
    """Check whether this computer can serve, and say what to do if it cannot."""
    from peers.ops.doctor import examine, is_well, show

    with busy("looking at this computer and its network", quiet=as_json):
        findings = signals.run(examine(lambda: named_network(bootstrap, network), port, announce))
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
