"""One hivemind DHT node on the running event loop: started, hardened, stopped.

Its only process is libp2p's daemon.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import P2P, PeerID
from hivemind.utils.timed_storage import ValueWithExpiration

from swarm.config import Network
from swarm.errors import ClockOff, DirectoryDown
from swarm.identity import Identity
from swarm.network.dht.daemon import explain, start_daemon, stop_daemon
from swarm.network.dht.records import CLOCK_SKEW_S
from swarm.network.dht.routing_table import NetworkRoutingTable, enter, look_around, meet, peer_of
from swarm.network.dht.rpc_gater import node_id_of
from swarm.network.dht.storage import BoundedStorage
from swarm.network.dht.validator import RecordValidator
from swarm.util.tasks import end, within

_RPC_TIMEOUT_S = 3.0  # a DHT request over a slow link, relay included
# Records lie on the 5 nodes nearest to their key; searching a few more finds those five for
# certain.
_BEAM_SIZE = 8
# The same at a crowded key.
_WIDE_BEAM_SIZE = 40
_WIDE_REPLICAS = 32
_GAUGE_INTERVAL_S = 600.0
# "Never good enough": a search that may stop at a late enough expiration can be stopped by a lie
# about it.
_ASK_EVERYBODY = float("nan")
_KEEP_INTERVAL_S = 60.0
_TIME_INTERVAL_S = 600.0  # between two questions for the time: clocks drift
_ASKED_FOR_THE_TIME = 8  # nodes, besides the bootstrap nodes
_BAN_S = 5.0  # how long searches avoid a node that did not answer

log = logging.getLogger(__name__)


@dataclass
class DirectoryNode:
    """A running DHT node with its daemon. Its owner calls `stop`."""

    daemon: P2P
    dht: DHTNode
    bootstrap: tuple[str, ...]
    addresses: tuple[str, ...]  # multiaddrs with our peer id, loopback last
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    in_time: bool = True  # as the others live, by all that is known
    gauged_at: float = field(default_factory=time.monotonic)

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
    ) -> DirectoryNode:
        """Start the daemon under our identity and enter the DHT through the network's bootstrap
        nodes.

        Nodes that are `known` are greeted besides, without waiting for them. A `bootstrap_node`
        enters through those of the others that are there, and greets the rest when they come.

        Raises NoBootstrap if none of them answers within `timeout_s`, ClockOff if our clock is too
        far from theirs, DirectoryDown if the daemon does not run, the port is taken or the others
        refuse us. Leaves no process behind when it fails or is cancelled.
        """
        daemon = await start_daemon(
            identity,
            replace(network, bootstrap=()) if bootstrap_node else network,
            host=host,
            port=port,
            bootstrap_node=bootstrap_node,
            client_mode=client_mode,
            timeout_s=timeout_s,
        )
        try:
            maddrs = (
                []
                if client_mode
                else [str(address) for address in await daemon.get_visible_maddrs()]
            )
            dht = await start_dht(daemon, identity, network, client_mode)
            places = [dht.node_id, DHTID.from_bytes(daemon.gate.eclipse.place)]
            if bootstrap_node:
                await meet(dht, network.bootstrap)
            else:
                await within(timeout_s, enter(dht, network.bootstrap))
            await look_around(dht, places)
        except BaseException as error:
            await stop_daemon(daemon)
            if failure := explain(error, network.bootstrap):
                raise failure from error
            raise
        addresses = tuple(sorted(maddrs, key=lambda address: "/127.0.0.1/" in address))
        node = cls(daemon, dht, network.bootstrap, addresses)
        node.tasks.append(asyncio.create_task(node._keep()))
        if known:
            node.tasks.append(asyncio.create_task(meet(dht, known)))
        return node

    async def find(
        self, keys: Sequence[str]
    ) -> Mapping[str, ValueWithExpiration[DictionaryDHTValue] | None]:
        """Return the records under these keys. Where nodes crowd around a key, ask more of them."""
        found: dict[str, ValueWithExpiration[DictionaryDHTValue] | None]
        found = await self.dht.get_many(keys, _ASK_EVERYBODY, beam_size=_BEAM_SIZE)
        if crowded := self._crowded(keys):
            found |= await self.dht.get_many(crowded, _ASK_EVERYBODY, beam_size=_WIDE_BEAM_SIZE)
        return found

    async def store(
        self, records: Mapping[str, bytes], expirations: Mapping[str, float], subkey: str
    ) -> bool:
        """Store values under these keys. Where nodes crowd around a key, store at more of them.

        Return False if a value was not accepted.
        """

        async def store_at(dht: DHTNode, keys: Sequence[str]) -> bool:
            accepted = await dht.store_many(
                keys=list(keys),
                values=[records[key] for key in keys],
                expiration_time=[expirations[key] for key in keys],
                subkeys=[subkey] * len(keys),
                exclude_self=dht.protocol.client_mode,
            )
            return all(accepted.values())

        good = await store_at(self.dht, list(records))
        if crowded := self._crowded(records):
            wide = copy.copy(self.dht)
            wide.num_replicas = _WIDE_REPLICAS
            good = await store_at(wide, crowded)
        return good

    async def gauge(self) -> None:
        """Measure again how densely nodes stand, if the last time was long ago."""
        if time.monotonic() - self.gauged_at > _GAUGE_INTERVAL_S:
            self.gauged_at = time.monotonic()
            eclipse = self.daemon.gate.eclipse
            eclipse.move()
            await self.dht.find_nearest_nodes([DHTID.from_bytes(eclipse.place)])

    def _crowded(self, keys: Iterable[str]) -> list[str]:
        return [
            key for key in keys if self.daemon.gate.eclipse.crowded(DHTID.generate(key).to_bytes())
        ]

    @property
    def neighbours(self) -> int:
        """The number of other nodes that this one knows."""
        return len(self.dht.protocol.routing_table.uid_to_peer_id)

    @property
    def stored(self) -> int:
        """The number of records that it stores for others."""
        return int(self.dht.protocol.storage.records)

    async def contacts(self) -> list[str]:
        """Return multiaddrs of the nodes to which this one is connected."""
        known = set(self.dht.protocol.routing_table.uid_to_peer_id.values())
        return [
            f"{address}/p2p/{peer.peer_id}"
            for peer in await self.daemon.list_peers()
            if peer.peer_id in known
            for address in peer.addrs
        ]

    def check(self) -> None:
        """Raise DirectoryDown if the daemon has ended.

        hivemind would not notice, and store records at this node only.
        """
        child = self.daemon._child
        if child is None or child.returncode is not None:
            raise DirectoryDown("libp2p's daemon (p2pd) has ended, so restart this program")

    async def rejoin(self) -> None:
        """Greet the bootstrap nodes again if every other node has been lost, as after their
        restart.

        hivemind forgets nodes that don't answer and never comes back to them. Succeeds or not in
        silence: `neighbours` tells.
        """
        if self.neighbours or not self.bootstrap:
            return
        await meet(self.dht, self.bootstrap)

    async def check_clock(self) -> None:
        """Raise ClockOff if our clock is so far from the others' that they drop our records.

        Warn once, and log once when it is right again. After sleep the clock only seems to be off,
        so the others are asked again first.
        """
        clock = self.daemon.gate.clock
        try:
            clock.check(CLOCK_SKEW_S)
        except ClockOff:
            await self._ask_the_time()
        try:
            clock.check(CLOCK_SKEW_S)
        except ClockOff as error:
            if self.in_time:
                log.warning("%s", error)
            self.in_time = False
            raise
        if not self.in_time:
            log.warning("This computer's clock agrees with the other nodes' again.")
        self.in_time = True

    async def _ask_the_time(self) -> None:
        """Ask some nodes for their time, all at once; the gater notes the answers."""
        asked_at = self.daemon.gate.clock.steady()
        known = list(self.dht.protocol.routing_table.uid_to_peer_id.values())
        asked = {
            *map(peer_of, self.bootstrap),
            *random.sample(known, min(len(known), _ASKED_FOR_THE_TIME)),
        }
        await asyncio.gather(*(self.dht.protocol.call_ping(peer) for peer in asked))
        self.daemon.gate.clock.forget_before(asked_at)

    async def _keep(self) -> None:
        """Keep the network together: greet unknown bootstrap nodes, and check our clock.

        It does so now and then, until it is cancelled.
        """
        asked_at = time.monotonic()
        while True:
            await asyncio.sleep(_KEEP_INTERVAL_S * random.uniform(0.5, 1.5))
            table = self.dht.protocol.routing_table
            await meet(self.dht, [each for each in self.bootstrap if peer_of(each) not in table])
            if time.monotonic() - asked_at > _TIME_INTERVAL_S:
                await self._ask_the_time()
                asked_at = time.monotonic()
            with suppress(ClockOff):
                await self.check_clock()

    async def stop(self) -> None:
        """End the daemon. Safe to call twice, and after a failure."""
        self.dht.is_alive = False
        await end(*self.tasks)
        await stop_daemon(self.daemon)


async def start_dht(
    daemon: P2P, identity: Identity, network: Network, client_mode: bool
) -> DHTNode:
    """Return a hardened hivemind node over a running daemon, which knows no other nodes yet."""
    validator = RecordValidator(network.name, identity, admits=network.admits)
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
    return dht


def _harden(dht: DHTNode, validator: RecordValidator, network: Network) -> None:
    """Close holes in hivemind's node that a validator cannot close. The tests show the attacks."""
    protocol = dht.protocol
    # One bad record under a key must not hide the good ones.
    protocol._validate_dictionary = validator.sift
    # A node prefers its cache to what it stores, key by key, and strangers may write to the cache:
    # one valid record there would hide all the others. With one storage for both, such a write is
    # an ordinary store.
    protocol.cache = protocol.storage = BoundedStorage()
    routes = protocol.routing_table = NetworkRoutingTable(
        dht.node_id, protocol.bucket_size, 5, network.admits
    )
    update = protocol.update_routing_table

    async def update_if_fits(
        node_id: DHTID | None, peer_id: PeerID, responded: bool = True
    ) -> None:
        if node_id is None or not responded or routes.fits(node_id, peer_id):
            await update(node_id, peer_id, responded)

    protocol.update_routing_table = (
        update_if_fits  # else it looks through all records for those of a node it won't keep
    )
