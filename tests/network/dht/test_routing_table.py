"""Bootstrap nodes that lie, and nodes that claim a place that is not theirs."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from hivemind.utils.multiaddr import Multiaddr

from helpers.dht import (
    LAYERS,
    MODEL,
    Lab,
    eventually,
    laboratory,
    peer_id_of,
    record_of,
    signed_value,
)
from helpers.loopback import PATIENCE_S
from swarm.config import Network
from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.network.dht import directory, node, routing_table, rpc_gater
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord
from swarm.network.dht.routing_table import NetworkRoutingTable
from swarm.network.dht.rpc_gater import FIND, PING, STORE, node_id_of

LIES = ("nobody", "friends", "forged", "old", "garbage", "endless", "silent", "refuses", "fails")
defended_or_not = pytest.mark.parametrize("defended", [True, False])


class Liar:
    """A node that answers pings as it should, unless it refuses everybody, and lies about all
    else."""

    def __init__(self, p2p: P2P, lie: str, about: Identity, old: bytes) -> None:
        self.p2p, self.lie, self.about, self.old = p2p, lie, about, old
        self.over = asyncio.Event()
        self.asked = 0

    @classmethod
    async def start(
        cls, stack: AsyncExitStack, lie: str, about: Identity, old: bytes = b""
    ) -> Liar:
        p2p = await P2P.create(nat_port_map=False, auto_nat=False)
        stack.push_async_callback(p2p.shutdown)
        liar = cls(p2p, lie, about, old)
        stack.callback(liar.over.set)
        await p2p.add_protobuf_handler(PING, liar.ping, dht_pb2.PingRequest)
        await p2p.add_protobuf_handler(FIND, liar.find, dht_pb2.FindRequest)
        await p2p.add_protobuf_handler(STORE, liar.store, dht_pb2.StoreRequest)
        return liar

    async def addresses(self) -> tuple[str, ...]:
        return tuple(map(str, await self.p2p.get_visible_maddrs()))

    @property
    def info(self) -> dht_pb2.NodeInfo:
        return dht_pb2.NodeInfo(node_id=node_id_of(self.p2p.peer_id).to_bytes())

    async def ping(self, request: dht_pb2.PingRequest, context: P2PContext) -> dht_pb2.PingResponse:
        now = time.time() + (3600 if self.lie == "refuses" else 0)
        return dht_pb2.PingResponse(peer=self.info, dht_time=now, available=self.lie != "refuses")

    async def store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        return dht_pb2.StoreResponse(store_ok=[True] * len(request.keys), peer=self.info)

    async def find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        self.asked += 1
        if self.lie == "silent":
            await self.over.wait()
        if self.lie == "fails":
            raise ValueError("no")
        return dht_pb2.FindResponse(
            results=[self.result(key) for key in request.keys], peer=self.info
        )

    def result(self, key: bytes) -> dht_pb2.FindResult:
        later, lie = time.time() + 62, record_of(self.about, state="offline")
        if self.lie == "friends":
            friends = [PeerID.from_base58(Identity.generate().peer_id) for _ in range(20)]
            return dht_pb2.FindResult(
                nearest_node_ids=[node_id_of(friend).to_bytes() for friend in friends],
                nearest_peer_ids=[friend.to_bytes() for friend in friends],
            )
        if self.lie == "garbage":
            value = bytes(3_900_000 // 16)
        elif self.lie == "endless":
            value = MSGPackSerializer.dumps(
                [float("inf"), later, [[i, b"", later] for i in range(15_000)]]
            )
        elif self.lie == "forged":
            value = self.dictionary(signed_value(Identity.generate(), lie, later), later)
        elif self.lie == "old":
            value = self.dictionary(self.old, later)
        else:
            return dht_pb2.FindResult(type=dht_pb2.NOT_FOUND)
        return dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value, expiration_time=later)

    def dictionary(self, value: bytes, expiration: float) -> bytes:
        records = DictionaryDHTValue()
        records.store(self.about.peer_id, value, expiration)
        packed: bytes = MSGPackSerializer.dumps(records)
        return packed


async def found_by(lab: Lab, bootstrap: tuple[str, ...]) -> list[PeerRecord]:
    try:
        reader = await Directory.join(
            Identity.generate(), Network("test", bootstrap), client_mode=True
        )
        async with reader:
            return await reader.peers(MODEL, LAYERS)
    except SwarmError:
        return []


@pytest.mark.threat("lying-bootstrap")
async def test_a_bootstrap_node_that_lies_is_of_no_matter_beside_an_honest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The defence is that all are asked: the same lie from the only bootstrap node hides
    everybody."""
    async with laboratory() as lab:
        victim, _ = await lab.peer(free_cache_tokens=7)
        for lie in LIES:
            async with AsyncExitStack() as stack:
                if lie != "silent":  # on a busy machine the honest node, too, may answer late
                    patch = stack.enter_context(monkeypatch.context())
                    patch.setattr(node, "_RPC_TIMEOUT_S", PATIENCE_S)
                    patch.setattr(directory, "LOOKUP_TIMEOUT_S", PATIENCE_S)
                await _lie_beside_an_honest_one(lab, stack, lie, victim)


async def _lie_beside_an_honest_one(
    lab: Lab, stack: AsyncExitStack, lie: str, victim: Identity
) -> None:
    old = signed_value(victim, record_of(victim), time.time() + 1)
    liar = await Liar.start(stack, lie, victim, old)
    bad, good = await liar.addresses(), lab.bootstrap.addresses
    assert await found_by(lab, bad) == [], lie
    found = [record_of(victim, free_cache_tokens=7)]

    async def is_found() -> bool:
        return await found_by(lab, (*bad, *good)) == found

    # on a busy machine, what a lie costs to read may take a look's whole time
    await eventually(is_found)
    assert liar.asked or lie == "refuses", lie


@defended_or_not
@pytest.mark.threat("lying-bootstrap")
async def test_nodes_that_were_good_help_against_bootstrap_nodes_that_all_lie(
    defended: bool,
) -> None:
    async with laboratory() as lab, AsyncExitStack() as stack:
        victim, directory = await lab.peer()
        liar = await Liar.start(stack, "nobody", victim)
        gone = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
        known = (gone, *directory.addresses) if defended else ()
        network = Network("test", await liar.addresses())
        reader = await Directory.join(Identity.generate(), network, known=known, client_mode=True)
        async with reader:

            async def found() -> bool:
                return await reader.peers(MODEL, LAYERS) == [record_of(victim)]

            if defended:
                await eventually(found)
            else:
                assert not await found()


@pytest.fixture
def any_place(monkeypatch: pytest.MonkeyPatch, defended: bool) -> None:
    if not defended:
        monkeypatch.setattr(NetworkRoutingTable, "fits", lambda *_: True)
        monkeypatch.setattr(rpc_gater, "_sift", lambda _: None)


@defended_or_not
@pytest.mark.threat("chosen-place")
@pytest.mark.usefixtures("any_place")
async def test_one_node_cannot_stand_in_all_places_near_a_key(defended: bool) -> None:
    async with laboratory() as lab, AsyncExitStack() as stack:
        victim = Identity.generate()
        directory = await lab.join(victim)
        liar = await Liar.start(stack, "nobody", victim)
        for listener in (lab.bootstrap, directory):
            await liar.p2p._client.connect(peer_id_of(listener), [_transport(listener)])
        keys = [record_of(victim).key(), record_of(victim).model_record().key()]
        places = [DHTID(DHTID.generate(key) ^ i) for key in keys for i in range(1, 9)]
        for place in places:
            claim = dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=place.to_bytes()))
            for listener in (lab.bootstrap, directory):
                await liar.p2p.call_protobuf_handler(
                    peer_id_of(listener), PING, claim, dht_pb2.PingResponse
                )
        await directory.publish(record_of(victim))
        table = lab.bootstrap._node.dht.protocol.routing_table
        assert any(place in table for place in places) != defended
        reader = await lab.join(client_mode=True)
        assert (await reader.peers(MODEL, LAYERS) == [record_of(victim)]) == defended


def _transport(node: Directory) -> Multiaddr:
    return Multiaddr(node.addresses[0].rpartition("/p2p/")[0])


def test_a_table_keeps_as_many_spares_as_it_uses() -> None:
    """hivemind keeps every node that ever called."""
    ours = PeerID.from_base58(Identity.generate().peer_id)
    table = NetworkRoutingTable(node_id_of(ours), 2, 5, lambda _: True)
    for _ in range(1500):
        peer = PeerID.from_base58(Identity.generate().peer_id)
        table.add_or_update_node(node_id_of(peer), peer)
    assert all(len(bucket.replacement_nodes) <= 2 for bucket in table.buckets)
    kept = sum(
        len(bucket.nodes_to_peer_id) + len(bucket.replacement_nodes) for bucket in table.buckets
    )
    assert len(table.uid_to_peer_id) == len(table.peer_id_to_uid) == kept < 200


def test_strangers_are_not_in_the_table_of_a_private_swarm() -> None:
    member, stranger = (PeerID.from_base58(Identity.generate().peer_id) for _ in range(2))
    table = NetworkRoutingTable(
        DHTID.generate(), 20, 5, lambda peer_id: peer_id == member.to_base58()
    )
    for peer in (member, stranger):
        table.add_or_update_node(node_id_of(peer), peer)
    assert (member in table, stranger in table) == (True, False)
    assert routing_table.node_id_of(member) == table[member]
