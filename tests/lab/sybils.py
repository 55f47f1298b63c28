"""The cost of hiding a record: an attacker's nodes near its key that drop what they are told.

The attacker makes ids until enough of them are nearer to the key than any honest node. Those nodes
accept everything, store nothing, and name only each other.

    python tests/lab/sybils.py
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

import click
from hivemind.p2p import PeerID

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.dht_in_process import Swarm, trial
from swarm.identity import Identity
from swarm.network.dht import eclipse
from swarm.network.dht.rpc_gater import node_id_of


async def measure(nodes: int, trials: int, counts: list[int]) -> None:
    swarm = await Swarm.start(nodes)
    click.echo(f"{nodes} honest nodes, {trials} keys each")
    click.echo(
        "| nodes of the attacker's | found | calls a lookup | found, nobody looks for crowds |"
    )
    click.echo("|---|---|---|---|")
    usual = eclipse.CROWDED
    for count in counts:
        shown = [str(count)]
        for crowded in (usual, float("inf")):
            eclipse.CROWDED = crowded
            results = [await trial(swarm, count) for _ in range(trials)]
            shown.append(f"{100 * statistics.fmean(found for found, _ in results):.0f} %")
            if crowded == usual:
                shown.append(f"{statistics.fmean(calls for _, calls in results):.0f}")
        eclipse.CROWDED = usual
        click.echo(f"| {' | '.join(shown)} |")


def key_rate() -> float:
    """Return how many key pairs with their places are made per second, on one core."""
    began, made = time.process_time(), 0
    while time.process_time() - began < 2.0:
        node_id_of(PeerID.from_base58(Identity.generate().peer_id))
        made += 1
    return made / (time.process_time() - began)


@click.command()
@click.option("--nodes", default=300, show_default=True)
@click.option("--trials", default=20, show_default=True)
@click.option("--sybils", default="0,4,8,16,24,32,40,64", show_default=True)
def main(nodes: int, trials: int, sybils: str) -> None:
    rate = key_rate()
    click.echo(
        f"{rate:.0f} ids a second; one nearer to a key than {nodes} honest nodes takes"
        f" {nodes / rate:.2f} s"
    )
    asyncio.run(measure(nodes, trials, [int(count) for count in sybils.split(",")]))


if __name__ == "__main__":
    main()
