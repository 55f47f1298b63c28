"""Hundreds of real DHT nodes in one process without sockets, and an attacker's nodes."""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from hivemind.dht.routing import DHTID
from hivemind.p2p import P2PContext, PeerID
from hivemind.proto import dht_pb2

from helpers.records import peer_record
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.node import DirectoryNode, start_dht
from swarm.network.dht.records import PeerRecord, encode
from swarm.network.dht.routing_table import enter, look_around
from swarm.network.dht.rpc_auth import RpcCall
from swarm.network.dht.rpc_gater import FIND, PING, STORE, RpcGater, node_id_of

ENTRIES = 3  # honest nodes that each one enters through

Handler = Callable[[Any, P2PContext], Awaitable[Any]]


class Wire:
    """Carries calls between simulated daemons."""

    def __init__(self) -> None:
        self.daemons: dict[PeerID, Daemon] = {}
        self.calls = 0


class Daemon:
    """The part of libp2p's daemon that a node needs."""

    def __init__(self, wire: Wire, peer_id: PeerID) -> None:
        self.peer_id = peer_id
        self.gate = RpcGater(Network("test"))
        self._wire = wire
        self._handlers: dict[str, tuple[Handler, type[Any]]] = {}
        wire.daemons[peer_id] = self

    async def add_protobuf_handler(
        self, name: str, handler: Handler, kind: type[Any], **_: object
    ) -> None:
        self._handlers[name] = handler, kind

    async def call_protobuf_handler(
        self, peer: PeerID, name: str, message: Any, kind: type[Any]
    ) -> Any:
        call = RpcCall(name, self.peer_id.to_base58(), peer.to_base58())
        return await self.gate.ask(
            call, message, functools.partial(self._send, peer, call), kind.FromString
        )

    async def _send(self, peer: PeerID, call: RpcCall, request: bytes) -> bytes:
        self._wire.calls += 1
        await asyncio.sleep(0)
        there = self._wire.daemons[peer]
        handler, kind = there._handlers[call.name]
        context = P2PContext(handle_name=call.name, local_id=peer, remote_id=self.peer_id)
        return await there.gate.answer(
            call, request, kind.FromString, lambda message: handler(message, context)
        )


class Sybil:
    """An attacker's node: answers every call politely, and stores nothing."""

    def __init__(self, wire: Wire, peer_id: PeerID, friends: list[PeerID]) -> None:
        self.daemon = Daemon(wire, peer_id)
        self._info = dht_pb2.NodeInfo(node_id=node_id_of(peer_id).to_bytes())
        self._friends = friends

    async def start(self, victims: list[PeerID]) -> None:
        for name, handler, kind in (
            (PING, self._ping, dht_pb2.PingRequest),
            (FIND, self._find, dht_pb2.FindRequest),
            (STORE, self._store, dht_pb2.StoreRequest),
        ):
            await self.daemon.add_protobuf_handler(name, handler, kind)
        hello = dht_pb2.PingRequest(peer=self._info)
        for victim in victims:
            await self.daemon.call_protobuf_handler(victim, PING, hello, dht_pb2.PingResponse)

    async def _ping(self, _: dht_pb2.PingRequest, __: P2PContext) -> dht_pb2.PingResponse:
        return dht_pb2.PingResponse(peer=self._info, dht_time=time.time(), available=True)

    async def _store(self, request: dht_pb2.StoreRequest, _: P2PContext) -> dht_pb2.StoreResponse:
        return dht_pb2.StoreResponse(store_ok=[True] * len(request.keys), peer=self._info)

    async def _find(self, request: dht_pb2.FindRequest, _: P2PContext) -> dht_pb2.FindResponse:
        some = random.sample(self._friends, min(20, len(self._friends)))
        result = dht_pb2.FindResult(
            nearest_node_ids=[node_id_of(friend).to_bytes() for friend in some],
            nearest_peer_ids=[friend.to_bytes() for friend in some],
        )
        return dht_pb2.FindResponse(results=[result] * len(request.keys), peer=self._info)


class Swarm:
    """Honest nodes, and those that an attacker adds for a while."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.nodes: list[DirectoryNode] = []

    @classmethod
    async def start(cls, nodes: int) -> Swarm:
        swarm = cls()
        for _ in range(nodes):
            swarm.nodes.append(await swarm.join(Identity.generate()))
        return swarm

    async def join(self, identity: Identity, client_mode: bool = False) -> DirectoryNode:
        daemon: Any = Daemon(self.wire, PeerID.from_base58(identity.peer_id))
        dht = await start_dht(daemon, identity, Network("test"), client_mode)
        through = random.sample(self.nodes, min(ENTRIES, len(self.nodes)))
        addresses = [
            f"/ip4/127.0.0.1/tcp/1/p2p/{node.daemon.peer_id.to_base58()}" for node in through
        ]
        await enter(dht, addresses)
        await look_around(dht, [dht.node_id, DHTID.from_bytes(daemon.gate.eclipse.place)])
        return DirectoryNode(daemon, dht, (), ())

    async def attack(self, key: str, count: int) -> list[PeerID]:
        """Add attacker's nodes nearer to a key than honest ones, which get to know them."""
        where = DHTID.generate(key)
        honest = sorted((node.dht.node_id ^ where, node.daemon.peer_id) for node in self.nodes)
        sybils: list[PeerID] = []
        while len(sybils) < count:
            # an id without a private key, which is never needed
            made = PeerID(b"\x00\x24\x08\x01\x12\x20" + secrets.token_bytes(32))
            if node_id_of(made) ^ where < honest[0][0]:
                sybils.append(made)
        for sybil in sybils:
            await Sybil(self.wire, sybil, sybils).start([peer for _, peer in honest[:40]])
        return sybils

    def forget(self, peers: list[PeerID]) -> None:
        for peer in peers:
            del self.wire.daemons[peer]
            for node in self.nodes:
                with suppress(KeyError):
                    del node.dht.protocol.routing_table[node_id_of(peer)]


async def trial(swarm: Swarm, sybils: int) -> tuple[bool, int]:
    """Tell whether a new client finds a record that was published twice, and in how many calls."""
    publisher = swarm.nodes[-1]
    identity = publisher.dht.protocol.record_validator._identity
    record: PeerRecord = peer_record(identity.peer_id, fingerprint=secrets.token_hex(16))
    key = record.key()
    attackers = await swarm.attack(key, sybils)
    for later in (59.0, 60.0):
        await publisher.store({key: encode(record)}, {key: time.time() + later}, identity.peer_id)
    client = await swarm.join(Identity.generate(), client_mode=True)
    before = swarm.wire.calls
    found = await client.find([key])
    calls = swarm.wire.calls - before
    swarm.forget(attackers)
    return found[key] is not None and identity.peer_id in found[key].value, calls
