"""How far our clock is from the others': the DHT drops records of nodes that live in another time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from statistics import median

from hivemind.dht.protocol import DHTProtocol
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.multiaddr import Multiaddr

from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.network.daemon import start_daemon, stop_daemon
from swarm.network.tasks import within

START_TIMEOUT_S = 6.0
ASK_TIMEOUT_S = 3.0


async def clock_skew_s(network: Network) -> float:
    """By how many seconds our clock is ahead of the bootstrap nodes' clocks, by the median of those that answer.

    Works where joining fails because of the clock: it only asks what time it is.
    Raises NoBootstrap if no node tells its time, DirectoryDown if libp2p's daemon does not run.
    """
    daemon = await start_daemon(Identity.generate(), network, client_mode=True, timeout_s=START_TIMEOUT_S)
    try:
        answers = await asyncio.gather(*(_skew_s(daemon, address) for address in network.bootstrap))
    finally:
        await stop_daemon(daemon)
    skews = [skew for skew in answers if skew is not None]
    if not skews:
        raise NoBootstrap(network.bootstrap)
    return median(skews)


async def _skew_s(daemon: P2P, address: str) -> float | None:
    """Ahead of one node; the way there and the way back are taken to be equally long."""
    # The class's own `get_stub` is for nodes that have entered the DHT; the inherited one needs the daemon only.
    stub = super(DHTProtocol, DHTProtocol).get_stub(daemon, PeerID.from_base58(Multiaddr(address)["p2p"]))
    asked = time.time()
    with suppress(Exception):  # whatever the other side does, it did not tell its time
        answer = await within(ASK_TIMEOUT_S, stub.rpc_ping(dht_pb2.PingRequest()))
        return (asked + time.time()) / 2 - answer.dht_time if answer.dht_time else None
    return None
