"""``swarm demo --serve``: a swarm of processes on this machine, and a gateway in front of it."""

import click

from swarm.demo import TARGET
from swarm.demo.swarm import demo_swarm
from swarm.gateway.greeting import greeting
from swarm.gateway.server import Settings, serving, stopped
from swarm.model.compute import AUTOMATIC, ComputeOptions

EXAMPLE = (
    "Mia has 12 coins. A friend brings 30 more coins. At the market, she buys 25 more. "
    "How many coins does Mia have in the end?"
)


async def serve_demo(
    peers: int, link_ms: float, port: int, compute: ComputeOptions = AUTOMATIC
) -> None:
    """Serve until Ctrl-C or SIGTERM. Raise `ProcessFailed`, `NotStarted` or `CannotListen`.

    Args:
        link_ms: delay of every link, one way.
        compute: where the client computes.
    """
    click.echo(f"Starting a bootstrap node and {peers} peers as processes on this machine ...")
    async with (
        demo_swarm(peers, link_ms, compute) as (swarm, client),
        serving([client], Settings(port=port)) as url,
    ):
        click.echo(
            f"Links: {link_ms:g} ms one way, emulated. Peers and clients enter with"
            f" --network {swarm.network.name} --bootstrap {swarm.bootstrap}"
        )
        click.echo(greeting(url, [TARGET], EXAMPLE))
        await stopped()
