"""The directory of a swarm: who serves what. The DHT as the rest of the project sees it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from hivemind.p2p import P2P

from swarm.config import Network
from swarm.errors import DirectoryDown, InvalidRecord, NoBootstrap
from swarm.identity import Identity
from swarm.network.node import Node
from swarm.network.records import (
    MAX_MODEL_LAYERS,
    RECORD_LIFETIME_S,
    ModelRecord,
    PeerRecord,
    Record,
    decode,
    encode,
    models_key,
    span_key,
)
from swarm.network.stream import Streams

JOIN_TIMEOUT_S = 6.0  # on loopback a node starts in half a second
PUBLISH_TIMEOUT_S = 10.0
LOOKUP_TIMEOUT_S = 8.0
_TICK_S = 0.001  # the least by which one expiration is later than another
# Records lie on the 5 nodes nearest to their key; searching a few more finds those five for certain.
_BEAM_SIZE = 8
# "Never good enough": a search that may stop at a late enough expiration can be stopped by a lie about it.
_ASK_EVERYBODY = float("nan")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelEntry:
    """One model that the swarm serves, wholly or in part, and by how many peers."""

    model: str
    fingerprint: str
    model_layers: int
    peers: int


class Directory:
    """One node's view of the DHT. Made by `join`, ended by `close` (or `async with`); one event loop only.

    Every method that talks to the network raises DirectoryDown when it cannot.
    """

    def __init__(self, identity: Identity, network: Network, node: Node) -> None:
        self._identity = identity
        self._network = network
        self._node = node
        self._published: PeerRecord | None = None
        self._expiration = 0.0  # of the last record published, for its successor must be later
        self._publishing = asyncio.Lock()
        self.streams = Streams(node.daemon)  # links over our libp2p daemon

    @classmethod
    async def join(
        cls,
        identity: Identity,
        network: Network,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        bootstrap_node: bool = False,
        client_mode: bool = False,
        timeout_s: float = JOIN_TIMEOUT_S,
    ) -> Directory:
        """Enter the network's DHT, listening on `host`:`port` (0: any port) unless in `client_mode`.

        A `bootstrap_node` may be the first of its network. A client looks up, but neither stores for others nor is
        called by them. Raises NoBootstrap within `timeout_s` if no bootstrap node answers or none is configured.
        """
        if not network.bootstrap and not bootstrap_node:
            raise NoBootstrap()
        node = await Node.start(
            identity,
            network,
            host=host,
            port=port,
            bootstrap_node=bootstrap_node,
            client_mode=client_mode,
            timeout_s=timeout_s,
        )
        return cls(identity, network, node)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which this node can be named as a bootstrap node, loopback last. Empty for a client."""
        return self._node.addresses

    @property
    def daemon(self) -> P2P:
        """libp2p's daemon of this node."""
        return self._node.daemon

    async def publish(self, record: PeerRecord, *, lifetime_s: float = RECORD_LIFETIME_S) -> None:
        """Store our record until `lifetime_s` from now, in place of the one published before.

        If the span has moved, the old place says so at once. Raises InvalidRecord if the record is not ours.
        """
        if record.peer_id != self._identity.peer_id or record.network != self._network.name:
            raise InvalidRecord(f"{record.peer_id} in {record.network} is not this node")
        async with self._publishing:
            before = self._published
            expiration = max(time.time() + lifetime_s, self._expiration + 2 * _TICK_S)
            self._expiration, self._published = expiration, record
            stores: list[tuple[Record, float]] = [(record, expiration), (record.model_record(), expiration)]
            if before and before.key() != record.key():
                stores.append((before.model_copy(update={"state": "offline"}), expiration - _TICK_S))
            await self._store(stores)

    async def withdraw(self) -> None:
        """Tell readers that we are gone, by an "offline" record that outlives the published one. Once is enough."""
        if self._published:
            await self.publish(self._published.model_copy(update={"state": "offline"}))
            self._published = None

    async def peers(self, fingerprint: str, model_layers: int) -> list[PeerRecord]:
        """Every peer that serves layers of this model and is not offline, in order of their spans."""
        keys = [
            span_key(self._network.name, fingerprint, first) for first in range(min(model_layers, MAX_MODEL_LAYERS))
        ]
        newest: dict[str, tuple[float, PeerRecord]] = {}
        for record, expiration in await self._find(keys):
            if isinstance(record, PeerRecord) and expiration > newest.get(record.peer_id, (0.0, None))[0]:
                newest[record.peer_id] = (expiration, record)
        online = [r for _, r in newest.values() if r.state != "offline" and r.model_layers == model_layers]
        return sorted(online, key=lambda record: (record.first_layer, record.last_layer, record.peer_id))

    async def models(self) -> list[ModelEntry]:
        """What the network serves, most peers first. Where peers disagree on a fingerprint, the majority names it."""
        claims: defaultdict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
        for record, _ in await self._find([models_key(self._network.name)]):
            if isinstance(record, ModelRecord) and record.state != "offline":
                claims[record.fingerprint][record.model, record.model_layers] += 1
        entries = []
        for fingerprint, claim in claims.items():
            (model, model_layers), _ = claim.most_common(1)[0]
            entries.append(ModelEntry(model, fingerprint, model_layers, peers=claim.total()))
        return sorted(entries, key=lambda entry: (-entry.peers, entry.model))

    async def close(self) -> None:
        """Leave the DHT and end the daemon. Safe to call twice. Withdraw first, or readers wait for the expiration."""
        await self.streams.close()
        await self._node.stop()

    async def __aenter__(self) -> Directory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _store(self, stores: list[tuple[Record, float]]) -> None:
        keys = [record.key() for record, _ in stores]
        await self._reach_out()
        accepted = await _within(
            PUBLISH_TIMEOUT_S,
            self._node.dht.store_many(
                keys=keys,
                values=[encode(record) for record, _ in stores],
                expiration_time=[expiration for _, expiration in stores],
                subkeys=[self._identity.peer_id] * len(keys),
                exclude_self=self._node.dht.protocol.client_mode,
            ),
        )
        self._node.check()
        if not all(accepted.values()):
            raise DirectoryDown("our record was not accepted by the nodes that should store it")

    async def _find(self, keys: list[str]) -> Iterator[tuple[Record, float]]:
        await self._reach_out()
        found = await _within(LOOKUP_TIMEOUT_S, self._node.dht.get_many(keys, _ASK_EVERYBODY, beam_size=_BEAM_SIZE))
        self._node.check()
        now = time.time()
        return (
            (record, entry.expiration_time)
            for under_key in found.values()
            if under_key is not None and isinstance(under_key.value, dict)
            for entry in under_key.value.values()
            if entry.expiration_time > now and (record := _decoded(entry.value)) is not None
        )

    async def _reach_out(self) -> None:
        """Make sure that somebody else hears us, or raise."""
        self._node.check()
        await self._node.rejoin()
        if self._network.bootstrap and not self._node.neighbours:
            raise DirectoryDown("no other node answers any more; check the network, it is tried again by itself")


async def _within(timeout_s: float, awaitable: Awaitable[_T]) -> _T:
    try:
        return await asyncio.wait_for(awaitable, timeout_s)
    except asyncio.TimeoutError as error:
        raise DirectoryDown(f"the other nodes did not answer within {timeout_s:.0f} s") from error


def _decoded(value: object) -> Record | None:
    try:
        return decode(value) if isinstance(value, bytes) else None
    except InvalidRecord:
        return None
