"""One hivemind DHT node on the running event loop: started, hardened, stopped. Its only process is libp2p's daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID

from swarm.config import Network
from swarm.errors import DirectoryDown
from swarm.identity import Identity
from swarm.network.daemon import explain, start_daemon, stop_daemon
from swarm.network.gate import node_id_of
from swarm.network.nodes import Routes, enter, meet
from swarm.network.shelf import Shelf
from swarm.network.tasks import end, within
from swarm.network.validator import RecordValidator

_RPC_TIMEOUT_S = 3.0  # a DHT request over a slow link, relay included
_BAN_S = 5.0  # how long searches avoid a node that did not answer


@dataclass
class Node:
    """A running DHT node with its daemon. Whoever starts it calls `stop`."""

    daemon: P2P
    dht: DHTNode
    bootstrap: tuple[str, ...]
    addresses: tuple[str, ...]  # multiaddrs with our peer id, loopback last
    meeting: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(
        cls,
        identity: Identity,
        network: Network,
        *,
        known: Sequence[str] = (),
        host: str,
        port: int,
        bootstrap_node: bool,
        client_mode: bool,
        timeout_s: float,
    ) -> Node:
        """Start the daemon under our identity and enter the DHT through the network's bootstrap nodes.

        Nodes that are `known` are greeted besides, without waiting for them.

        Raises NoBootstrap if none of them answers within `timeout_s`, DirectoryDown if the daemon does not run, the
        port is taken or the others refuse us. Leaves no process behind when it fails or is cancelled.
        """
        validator = RecordValidator(network.name, identity, admits=network.admits)
        daemon: P2P | None = None

        async def begin() -> tuple[P2P, DHTNode, tuple[str, ...]]:
            nonlocal daemon
            daemon = await start_daemon(
                identity,
                network,
                host=host,
                port=port,
                bootstrap_node=bootstrap_node,
                client_mode=client_mode,
                timeout_s=timeout_s,
            )
            maddrs = [] if client_mode else [str(address) for address in await daemon.get_visible_maddrs()]
            dht = await DHTNode.create(
                p2p=daemon,
                node_id=node_id_of(daemon.peer_id),
                client_mode=client_mode,
                record_validator=validator,
                wait_timeout=_RPC_TIMEOUT_S,
                num_workers=16,
                blacklist_time=_BAN_S,
                backoff_rate=1.0,  # a node that was down for an hour is welcome as soon as it is back
                # hivemind's caches answer with what was true a while ago; a dead peer must not linger.
                cache_locally=False,
                cache_nearest=0,
                cache_on_store=False,
                cache_refresh_before_expiry=0,
                reuse_get_requests=False,
            )
            _harden(dht, validator, network)
            await enter(dht, network.bootstrap)
            return daemon, dht, tuple(sorted(maddrs, key=lambda address: "/127.0.0.1/" in address))

        try:
            running, dht, addresses = await within(timeout_s, begin())
        except BaseException as error:
            if daemon is not None:
                await stop_daemon(daemon)
            if failure := explain(error, network.bootstrap):
                raise failure from error
            raise
        node = cls(running, dht, network.bootstrap, addresses)
        if known:
            node.meeting.append(asyncio.create_task(meet(dht, known)))
        return node

    @property
    def neighbours(self) -> int:
        """How many other nodes this one knows."""
        return len(self.dht.protocol.routing_table.uid_to_peer_id)

    async def contacts(self) -> list[str]:
        """Multiaddrs of nodes that this one is connected to, as others could enter through them."""
        known = set(self.dht.protocol.routing_table.uid_to_peer_id.values())
        return [
            f"{address}/p2p/{peer.peer_id}"
            for peer in await self.daemon.list_peers()
            if peer.peer_id in known
            for address in peer.addrs
        ]

    def check(self) -> None:
        """Raises DirectoryDown if the daemon is gone. hivemind then keeps quiet and stores records with itself."""
        child = self.daemon._child
        if child is None or child.returncode is not None:
            raise DirectoryDown("libp2p's daemon (p2pd) has ended, so restart this program")

    async def rejoin(self) -> None:
        """Greet the bootstrap nodes again if every other node has been lost, as after their restart.

        hivemind forgets nodes that don't answer and never comes back to them. Succeeds or not in silence: `neighbours`
        tells.
        """
        if self.neighbours or not self.bootstrap:
            return
        await meet(self.dht, self.bootstrap)

    async def stop(self) -> None:
        """End the daemon. Safe to call twice, and after a failure."""
        self.dht.is_alive = False
        await end(*self.meeting)
        await stop_daemon(self.daemon)


def _harden(dht: DHTNode, validator: RecordValidator, network: Network) -> None:
    """Close holes in hivemind's node that no validator alone can. The tests show the attacks."""
    protocol = dht.protocol
    # One bad record under a key must not hide the good ones.
    protocol._validate_dictionary = validator.sift
    # A node prefers its cache to what it stores, key by key, and strangers may write to the cache: one valid record
    # there would hide all the others. With one storage for both, such a write is an ordinary store.
    protocol.cache = protocol.storage = Shelf()
    routes = protocol.routing_table = Routes(dht.node_id, protocol.bucket_size, 5, network.admits)
    update = protocol.update_routing_table

    async def update_if_fits(node_id: DHTID | None, peer_id: PeerID, responded: bool = True) -> None:
        if node_id is None or not responded or routes.fits(node_id, peer_id):
            await update(node_id, peer_id, responded)

    protocol.update_routing_table = (
        update_if_fits  # else it looks through all records for those of a node it won't keep
    )
