"""A client's way into a swarm: the directory, and connections to peers, direct or through
relays."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.keylock import held
from swarm.network.dht.directory import Directory, node_of_client
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections
from swarm.wire.handshake import LocalMember


@dataclass(frozen=True)
class SwarmConnection:
    """What a client reaches a swarm by."""

    directory: Directory
    dialer: Dialer
    connections: Connections


@contextlib.asynccontextmanager
async def connect(
    me: LocalMember, *, known_nodes: Sequence[str] = (), link_ms: float = 0.0, speaks_for: int = 1
) -> AsyncIterator[SwarmConnection]:
    """Enter the DHT of a network as a client, until the block ends.

    Args:
        known_nodes: multiaddrs of DHT nodes that let us in before. They are greeted besides the
            bootstrap nodes, and asked in their place if none of those answers.
        link_ms: emulated one-way delay of what the client sends.
        speaks_for: how many clients this one speaks for.

    Raises:
        KeyInUse: if another process holds this key for itself alone.
        NoBootstrap: if no bootstrap node is configured, or none answers.
        ClockOff: if our clock is too far from the others'.
        DirectoryDown: if libp2p's daemon does not run.
    """
    node = node_of_client(me.identity, me.network)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(held(node.file, alone=False))
        directory = await stack.enter_async_context(await _join(node, me.network, known_nodes))
        dialer = Dialer(me, link_ms, directory.streams, speaks_for)
        stack.push_async_callback(dialer.close)
        connections = Connections(dialer)
        stack.push_async_callback(connections.close)
        yield SwarmConnection(directory, dialer, connections)


async def _join(node: Identity, network: Network, known_nodes: Sequence[str]) -> Directory:
    try:
        return await Directory.join(node, network, known=known_nodes, client_mode=True)
    except NoBootstrap:
        if not known_nodes:
            raise
        known = replace(network, bootstrap=tuple(known_nodes))
        return await Directory.join(node, known, client_mode=True)
