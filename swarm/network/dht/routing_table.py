"""The nodes that a node knows, and how it meets the first ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import ValidationError
from hivemind.dht.routing import DHTID, RoutingTable
from hivemind.p2p import PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.network.dht.clock_skew import MAX_SKEW_S
from swarm.network.dht.rpc_gater import node_id_of
from swarm.util.tasks import end, within

# for silent bootstrap nodes once one has answered, and for the search for our own place
STRAGGLERS_S = 2.5
GREETINGS = 3  # of a node that does not answer
CONNECT_TIMEOUT_S = 5.0  # to a node that may be gone


class NetworkRoutingTable(RoutingTable):  # type: ignore[misc, unused-ignore]
    """hivemind's table, with nodes of our network only, each under its own id, and bounded.

    hivemind believes any id that a node claims, so one node could fill all places near a key.
    """

    def __init__(
        self, node_id: DHTID, bucket_size: int, depth_modulo: int, admits: Callable[[str], bool]
    ) -> None:
        super().__init__(node_id, bucket_size, depth_modulo)
        self._admits = admits

    def fits(self, node_id: DHTID, peer: PeerID) -> bool:
        return node_id == node_id_of(peer) and self._admits(peer.to_base58())

    def add_or_update_node(self, node_id: DHTID, peer_id: PeerID) -> tuple[DHTID, PeerID] | None:
        """Add as hivemind does; leave out a node that does not fit."""
        if not self.fits(node_id, peer_id):
            return None
        to_ping: tuple[DHTID, PeerID] | None = super().add_or_update_node(node_id, peer_id)
        spares = self.buckets[self.get_bucket_index(node_id)].replacement_nodes
        while len(spares) > self.bucket_size:
            del self[next(iter(spares))]
        return to_ping


def peer_of(address: str) -> PeerID:
    """Return the peer that a multiaddr names."""
    return PeerID.from_base58(Multiaddr(address)["p2p"])


async def enter(dht: DHTNode, bootstrap: Iterable[str]) -> None:
    """Greet the bootstrap nodes, all at once, in place of `DHTNode.create`.

    There one node that refuses us is enough to fail; here one that lies or is silent does no harm.
    Raises ValidationError if more refuse us than let us in, or ClockOff if that is the reason,
    RuntimeError if none answers.
    """
    peers = set(map(peer_of, bootstrap))
    if not peers:
        return
    greetings = [asyncio.create_task(_greet_again(dht, peer)) for peer in peers]
    try:
        for greeting in asyncio.as_completed(greetings):
            if await greeting is True:
                break
        await asyncio.wait(greetings, timeout=STRAGGLERS_S)
        answers = [greeting.result() for greeting in greetings if greeting.done()]
    finally:
        await end(*greetings)
    refusals = [answer for answer in answers if isinstance(answer, ValidationError)]
    if len(refusals) > answers.count(True):
        dht.protocol.p2p.gate.clock.check(MAX_SKEW_S)
        raise refusals[0]
    if True not in answers:
        raise RuntimeError("bootstrap failed: none of the nodes answers")


async def look_around(dht: DHTNode, places: Iterable[DHTID]) -> None:
    """Look for the nodes at these places of the DHT, for `STRAGGLERS_S`; answers may come later."""
    if not dht.protocol.routing_table.uid_to_peer_id:
        return
    with suppress(asyncio.TimeoutError):
        await within(STRAGGLERS_S, dht.find_nearest_nodes(list(places)))


async def meet(dht: DHTNode, addresses: Iterable[str]) -> None:
    """Greet nodes that may be gone, all at once. Those that answer are known from then on."""
    await asyncio.gather(*(_meet_one(dht, address) for address in addresses))


async def _meet_one(dht: DHTNode, address: str) -> None:
    peer = peer_of(address)
    if peer == dht.p2p.peer_id:
        return  # this node is in the list itself
    with suppress(Exception):  # a node that fails, however it does, is left out
        await within(
            CONNECT_TIMEOUT_S,
            dht.p2p._client.connect(peer, [Multiaddr(address.rpartition("/p2p/")[0])]),
        )
    await _greet(dht, peer, validate=False)


async def _greet_again(dht: DHTNode, peer: PeerID) -> bool | ValidationError:
    """Return whether a node lets us in. A busy one may miss a greeting, so there are several."""
    for _ in range(GREETINGS):
        if answer := await _greet(dht, peer, validate=True):
            return answer
    return False


async def _greet(dht: DHTNode, peer: PeerID, validate: bool) -> bool | ValidationError:
    """Return whether a node lets us in."""
    try:
        # None on failure, within its own timeout
        node_id = await dht.protocol.call_ping(peer, validate=validate)
    except ValidationError as error:
        return error
    if node_id is None:
        return False
    await dht.protocol.update_routing_table(node_id, peer)  # call_ping does it too, but later
    return peer in dht.protocol.routing_table
