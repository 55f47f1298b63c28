"""Real DHT nodes on loopback, and strangers that speak plain hivemind to them, for DHT tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import P2P, PeerID
from hivemind.utils import MSGPackSerializer

from helpers.loopback import PATIENCE_S
from helpers.records import peer_record
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord, Record, encode
from swarm.network.dht.rpc_gater import node_id_of
from swarm.network.dht.validator import RecordValidator, _signed_bytes

MODEL = "0" * 32
LAYERS = 8


def record_of(identity: Identity, first: int = 0, last: int = 4, **changes: Any) -> PeerRecord:
    ours = {
        "first_layer": first,
        "last_layer": last,
        "certificate": identity.certificate_fingerprint,
    }
    return peer_record(
        identity.peer_id, **(ours | {"fingerprint": MODEL, "model_layers": LAYERS} | changes)
    )


def daemons() -> list[int]:
    """Return the process ids of our children that run libp2p's daemon."""
    pids = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread is over
            pids += map(int, (task / "children").read_text().split())
    return [
        pid
        for pid in pids
        if (name := Path(f"/proc/{pid}/comm")).exists() and name.read_text() == "p2pd\n"
    ]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


class Lab:
    """A bootstrap node and the nodes that enter through it. All of them end with the test."""

    def __init__(
        self, stack: AsyncExitStack, bootstrap: Directory, network: Network | None = None
    ) -> None:
        self.stack = stack
        self.bootstrap = bootstrap
        self.network = replace(network or Network("test"), bootstrap=bootstrap.addresses)

    async def join(self, identity: Identity | None = None, **options: Any) -> Directory:
        joined = await Directory.join(identity or Identity.generate(), self.network, **options)
        return await self.stack.enter_async_context(joined)

    async def peer(self, **changes: Any) -> tuple[Identity, Directory]:
        identity = Identity.generate()
        directory = await self.join(identity)
        await directory.publish(record_of(identity, **changes))
        return identity, directory

    async def stranger(self, validator: RecordValidatorBase | None, **options: Any) -> DHTNode:
        return await plain_node(self.stack, self.network.bootstrap, validator, **options)


async def plain_node(
    stack: AsyncExitStack,
    bootstrap: tuple[str, ...],
    validator: RecordValidatorBase | None = None,
    **options: Any,
) -> DHTNode:
    p2p = await P2P.create(initial_peers=bootstrap, nat_port_map=False, auto_nat=False)
    stack.push_async_callback(p2p.shutdown)
    options.setdefault("node_id", node_id_of(p2p.peer_id))  # our nodes ignore any other one
    return await DHTNode.create(
        p2p=p2p, initial_peers=bootstrap, record_validator=validator, **options
    )


@asynccontextmanager
async def laboratory(
    network: Network | None = None, identity: Identity | None = None
) -> AsyncIterator[Lab]:
    """Yield a lab of this network, which has no bootstrap nodes yet."""
    network = network or Network("test")
    identity = identity or Identity.generate()
    async with AsyncExitStack() as stack:
        first = await Directory.join(identity, network, bootstrap_node=True)
        yield Lab(stack, await stack.enter_async_context(first), network)
    assert daemons() == []


class Forger(RecordValidatorBase):  # type: ignore[misc, unused-ignore]
    """Signs every record with its own key, and accepts every record."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def validate(self, record: DHTRecord) -> bool:
        return True

    def sign_value(self, record: DHTRecord) -> bytes:
        signed = _signed_bytes(record.key, record.subkey, record.value, record.expiration_time)
        return bytes(record.value + self.identity.sign(signed))


def peer_id_of(node: Directory) -> PeerID:
    return PeerID.from_base58(node.addresses[0].rsplit("/", 1)[1])


def signed_value(
    identity: Identity, record: Record, expiration: float, key: str | None = None
) -> bytes:
    """Return a record as it is stored, signed by its owner."""
    packed = MSGPackSerializer.dumps(encode(record))
    subkey = MSGPackSerializer.dumps(identity.peer_id)
    unsigned = DHTRecord(DHTID.generate(key or record.key()).to_bytes(), subkey, packed, expiration)
    return RecordValidator("test", identity).sign_value(unsigned)
