"""The directory of a swarm: who serves what. The DHT as the rest of the project sees it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from hivemind.p2p import P2P

from swarm.config import Network
from swarm.errors import DirectoryDown, InvalidRecord, NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.crawl import CrawlSample
from swarm.network.dht.daemon import ANSWER_TIMEOUT_S
from swarm.network.dht.keys import MAX_DEPTH, SIGNPOST, Shard, block_count, span_key, way_of
from swarm.network.dht.lookup import ENOUGH_PEERS, ModelEntry, ModelLookup, PeerLookup, RecordsByKey
from swarm.network.dht.node import DirectoryNode
from swarm.network.dht.publication import Publication
from swarm.network.dht.records import (
    RECORD_LIFETIME_S,
    PeerRecord,
    Record,
    decode,
    encode,
    latest_expiration_s,
)
from swarm.network.links.libp2p import Streams
from swarm.util.tasks import within

PUBLISH_TIMEOUT_S = 10.0
LOOKUP_TIMEOUT_S = 8.0
_TICK_S = 0.001  # the least by which one expiration is later than another
_T = TypeVar("_T")


def node_of_client(me: Identity, network: Network) -> Identity:
    """Return the identity of a client's node in the DHT.

    It is a new one, so that clients and peers of one key do not share a node. If the network has a
    list of members, it is `me`, since others let no other node in.
    """
    return Identity.generate() if network.members is None else me


class Directory:
    """One node's view of the DHT.

    Made by `join`, ended by `close` (or `async with`); one event loop only.

    Every method that talks to the network raises DirectoryDown when it cannot.
    """

    def __init__(self, identity: Identity, network: Network, node: DirectoryNode) -> None:
        self._identity = identity
        self._network = network
        self._node = node
        self._rng = random.Random()
        self._publication: Publication | None = None
        self._published: Mapping[str, Record] = {}  # what was written last, by key
        self._expiration = 0.0  # of what was written last, for its successor must be later
        self._publishing = asyncio.Lock()
        self.streams = Streams(node.daemon)  # links over our libp2p daemon

    @classmethod
    async def join(
        cls,
        identity: Identity,
        network: Network,
        *,
        known: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        bootstrap_node: bool = False,
        client_mode: bool = False,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Directory:
        """Enter the network's DHT, listening on `host`:`port` (0: any port) unless in
        `client_mode`.

        A `bootstrap_node` may be the first of its network, or start before those that it names. A
        client looks up records, but stores none for others and is not called by them. Nodes that
        are `known`, by their multiaddrs, are greeted besides the bootstrap nodes, in case those
        lie.

        Raises NoBootstrap if no bootstrap node is configured or none answers within `timeout_s`,
        ClockOff if our clock is too far from theirs.
        """
        if not network.bootstrap and not bootstrap_node:
            raise NoBootstrap()
        node = await DirectoryNode.start(
            identity,
            network,
            known=known,
            host=host,
            port=port,
            bootstrap_node=bootstrap_node,
            client_mode=client_mode,
            timeout_s=timeout_s,
        )
        return cls(identity, network, node)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which this node can be named as a bootstrap node, loopback last.

        Empty for a client.
        """
        return self._node.addresses

    @property
    def daemon(self) -> P2P:
        """libp2p's daemon of this node."""
        return self._node.daemon

    @property
    def neighbours(self) -> int:
        """The number of other nodes of the DHT that this one knows."""
        return self._node.neighbours

    @property
    def stored(self) -> int:
        """The number of records that this node stores for others."""
        return self._node.stored

    async def connections(self) -> int:
        """Return how many nodes and peers are connected to the daemon, including those it relays
        for."""
        return len(await _within(LOOKUP_TIMEOUT_S, self.daemon.list_peers()))

    async def publish(self, record: PeerRecord, *, lifetime_s: float = RECORD_LIFETIME_S) -> None:
        """Store our record until `lifetime_s` from now, in place of the one published before.

        Now and then, look first which slot it should have. If it moves, an "offline" record takes
        its old slot at once. Raises InvalidRecord if the record is not ours.
        """
        if record.peer_id != self._identity.peer_id or record.network != self._network.name:
            raise InvalidRecord(f"{record.peer_id} in {record.network} is not this node")
        async with self._publishing:
            if self._publication is None or not self._publication.is_for(record):
                self._publication = Publication(record, self._rng)
            try:
                await self._look_around(self._publication)
            except DirectoryDown:
                if not self._published:
                    raise  # otherwise our record is refreshed where it lies
            await self._replace(self._publication.stores(record), lifetime_s)

    async def withdraw(self) -> None:
        """Replace our records by "offline" ones, which outlive them. Calling it once is enough."""
        async with self._publishing:
            if self._published:
                await self._replace(
                    {key: _offline(record) for key, record in self._published.items()}
                )
            self._publication = None
            self._published = {}

    async def peers(self, fingerprint: str, model_layers: int) -> list[PeerRecord]:
        """Return the peers that serve layers of this model, in the order of their spans.

        These are all that are not offline in a small swarm, and a sample in a large one.
        """
        return list((await self.survey(fingerprint, model_layers)).records)

    async def survey(
        self, fingerprint: str, model_layers: int, enough: int = ENOUGH_PEERS
    ) -> CrawlSample[PeerRecord]:
        """Return the same peers, and how many there are. Complete if fewer than ``enough``.

        The reading is bounded, however large the swarm is. If all layers are served, the sample
        serves them, too.
        """
        lookup = PeerLookup(self._network.name, fingerprint, model_layers, enough, self._rng)
        while keys := lookup.wanted():
            lookup.saw(await self._find(keys))
        return lookup.sample()

    async def under_our_id(self, fingerprint: str, model_layers: int) -> list[PeerRecord]:
        """Return the records under our own id, in all blocks of this model; newest first."""
        way, name = way_of(self._identity.peer_id), self._network.name
        blocks: Iterable[int] = range(block_count(model_layers))
        ours: list[tuple[float, PeerRecord]] = []
        for depth in range(MAX_DEPTH + 1):
            keys = {
                span_key(name, fingerprint, Shard(block, way[:depth])): block for block in blocks
            }
            found = await self._find(list(keys))
            for record, expiration in itertools.chain.from_iterable(found.values()):
                is_ours = record.peer_id == self._identity.peer_id and record.state != "offline"
                if isinstance(record, PeerRecord) and is_ours:
                    ours.append((expiration, record))
            blocks = [keys[key] for key, records in found.items() if len(records) >= SIGNPOST]
            if not blocks:
                break
        return [record for _, record in sorted(ours, key=lambda each: -each[0])]

    async def models(self) -> list[ModelEntry]:
        """Return the models that the network serves, most peers first.

        In a network of very many models some are left out.
        """
        lookup = ModelLookup(self._network.name, self._rng)
        while keys := lookup.wanted():
            lookup.saw(await self._find(keys))
        return lookup.models()

    async def contacts(self) -> list[str]:
        """Return multiaddrs of nodes through which the network can be entered, bootstrap nodes
        among them."""
        return await _within(LOOKUP_TIMEOUT_S, self._node.contacts())

    async def close(self) -> None:
        """Leave the DHT and end the daemon.

        Safe to call twice. Withdraw first, or readers wait for the expiration.
        """
        await self.streams.close()
        await self._node.stop()

    async def __aenter__(self) -> Directory:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _look_around(self, publication: Publication) -> None:
        while keys := publication.wanted(time.monotonic()):
            publication.saw(await self._find(keys), time.monotonic())

    async def _replace(
        self, records: Mapping[str, Record], lifetime_s: float = RECORD_LIFETIME_S
    ) -> None:
        """Write our records, each under its key, in place of all earlier ones."""
        gone = {
            key: _offline(record) for key, record in self._published.items() if key not in records
        }
        await self._reach_out()
        await _within(LOOKUP_TIMEOUT_S, self._node.gauge())
        now = time.time()
        if self._expiration > latest_expiration_s(now):
            self._expiration = 0.0  # our clock has been set back since
        expiration = max(now + lifetime_s, self._expiration + 2 * _TICK_S)
        self._expiration = expiration
        self._published = records
        stores = {**records, **gone}
        # Of two records of a peer, readers believe the one that expires later.
        expirations = {key: expiration - _TICK_S if key in gone else expiration for key in stores}
        values = {key: encode(record) for key, record in stores.items()}
        accepted = await _within(
            PUBLISH_TIMEOUT_S, self._node.store(values, expirations, self._identity.peer_id)
        )
        self._node.check()
        if not accepted:
            raise DirectoryDown("our record was not accepted by the nodes that should store it")

    async def _find(self, keys: list[str]) -> RecordsByKey:
        """Return the records under these keys now."""
        await self._reach_out()
        found = await _within(LOOKUP_TIMEOUT_S, self._node.find(keys))
        self._node.check()
        return {key: _current(under_key) for key, under_key in found.items()}

    async def _reach_out(self) -> None:
        """Raise if no other node is reachable, or our clock is off."""
        self._node.check()
        await self._node.rejoin()
        await self._node.check_clock()
        if self._network.bootstrap and not self._node.neighbours:
            raise DirectoryDown(
                "no other node answers any more; check the network, it is tried again by itself"
            )


async def _within(timeout_s: float, awaitable: Awaitable[_T]) -> _T:
    try:
        return await within(timeout_s, awaitable)
    except asyncio.TimeoutError as error:
        raise DirectoryDown(f"the other nodes did not answer within {timeout_s:.0f} s") from error


def _offline(record: Record) -> Record:
    return record.model_copy(update={"state": "offline"})


def _current(under_key: Any) -> list[tuple[Record, float]]:
    """Return the well-formed records of hivemind's answer about one key that have not expired."""
    if under_key is None or not isinstance(under_key.value, dict):
        return []
    now = time.time()
    return [
        (record, entry.expiration_time)
        for entry in under_key.value.values()
        if entry.expiration_time > now and (record := _decoded(entry.value)) is not None
    ]


def _decoded(value: object) -> Record | None:
    try:
        return decode(value) if isinstance(value, bytes) else None
    except InvalidRecord:
        return None
