"""``swarm demo --serve``: a swarm of processes on this machine, and a gateway in front of it."""

import click
import torch

from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm, even_spans
from swarm.gateway.greeting import greeting
from swarm.gateway.server import Settings, serving, stopped
from swarm.model.checkpoint import Checkpoint

EXAMPLE = (
    "Mia has 12 coins. A friend brings 30 more coins. At the market, she buys 25 more. "
    "How many coins does Mia have in the end?"
)


async def serve_demo(peers: int, link_ms: float, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM. Raise `ProcessFailed`, `NotStarted` or `CannotListen`.

    Args:
        link_ms: delay of every link, one way.
    """
    torch.set_num_threads(1)  # the peers need the other cores
    spans = even_spans(Checkpoint.open(locate(TARGET)).num_layers, peers)
    click.echo(f"Starting a bootstrap node and {peers} peers as processes on this machine ...")
    async with LocalSwarm(TARGET, spans, link_ms) as swarm:
        client = SwarmClient(
            locate(TARGET),
            draft=locate(DRAFT),
            network=swarm.network,
            link_ms=link_ms,
            audit_rate=0.0,
        )
        async with client, serving([client], Settings(port=port)) as url:
            click.echo(
                f"Links: {link_ms:g} ms one way, emulated. Peers join with --bootstrap"
                f" {swarm.bootstrap}"
            )
            click.echo(greeting(url, [TARGET], EXAMPLE))
            await stopped()
