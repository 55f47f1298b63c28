"""Bootstrap nodes and peers that start at the same moment, and how many peers each finally sees."""

import asyncio
import socket
from contextlib import AsyncExitStack, ExitStack, suppress

from helpers.dht import LAYERS, MODEL, daemons, eventually, record_of
from peers.access.entering import insist
from peers.server import publish
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory


async def start_together(peers: int, bootstraps: int = 1) -> list[int]:
    """Return how many peers each node sees, once all see all or time is up."""
    keys = [Identity.generate() for _ in range(bootstraps)]
    ports = free_ports(bootstraps)
    named = (
        f"/ip4/127.0.0.1/tcp/{port}/p2p/{key.peer_id}"
        for key, port in zip(keys, ports, strict=True)
    )
    network = Network("test", tuple(named))
    async with AsyncExitStack() as stack:

        async def bootstrap(identity: Identity, port: int) -> Directory:
            joining = Directory.join(identity, network, port=port, bootstrap_node=True)
            return await stack.enter_async_context(await joining)

        async def peer() -> Directory:
            identity = Identity.generate()
            joining = insist(lambda: Directory.join(identity, network), lambda _: None)
            directory = await stack.enter_async_context(await joining)
            await publish(directory, lambda: record_of(identity))
            return directory

        nodes = await asyncio.gather(
            *(peer() for _ in range(peers)),
            *(bootstrap(key, port) for key, port in zip(keys, ports, strict=True)),
        )
        seen: list[int] = []

        async def all_see_all() -> bool:
            seen[:] = [len(await node.peers(MODEL, LAYERS)) for node in nodes]
            return seen == [peers] * len(nodes)

        with suppress(AssertionError):  # the numbers tell
            await eventually(all_see_all)
    assert daemons() == []
    return seen


def free_ports(count: int) -> list[int]:
    """Return ports that no program listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
