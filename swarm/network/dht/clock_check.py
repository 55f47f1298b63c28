"""The distance of our clock from the bootstrap nodes', without entering the network."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hivemind.dht.protocol import DHTProtocol
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.multiaddr import Multiaddr

from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.daemon import start_daemon, stop_daemon
from swarm.util.tasks import within

ASK_TIMEOUT_S = 3.0


async def clock_skew_s(network: Network) -> float:
    """Return by how many seconds our clock is ahead of the bootstrap nodes' median.

    Works where joining fails because of the clock: it only asks what time it is.
    Raises NoBootstrap if no node tells its time, DirectoryDown if libp2p's daemon does not run.
    """
    daemon = await start_daemon(Identity.generate(), network, client_mode=True)
    try:
        await asyncio.gather(*(_ask(daemon, address) for address in network.bootstrap))
        clock = daemon.gate.clock
    finally:
        await stop_daemon(daemon)
    if not clock.nodes:
        raise NoBootstrap(network.bootstrap)
    return float(clock.ahead_s)


async def _ask(daemon: P2P, address: str) -> None:
    """Ask one node for its time, which the gater notes."""
    # The class's own `get_stub` is for nodes that have entered the DHT; the inherited one needs the
    # daemon only.
    stub = super(DHTProtocol, DHTProtocol).get_stub(
        daemon, PeerID.from_base58(Multiaddr(address)["p2p"])
    )
    with suppress(Exception):  # whatever the other side does, it did not tell its time
        await within(ASK_TIMEOUT_S, stub.rpc_ping(dht_pb2.PingRequest()))
