"""Real DHT nodes on loopback, and strangers that speak plain hivemind to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import PeerID
from hivemind.utils import MSGPackSerializer

import swarm.network.dht.node
from helpers.crowd import crowd
from helpers.dht import (
    LAYERS,
    MODEL,
    Forger,
    Lab,
    daemons,
    eventually,
    laboratory,
    plain_node,
    record_of,
)
from helpers.loopback import PATIENCE_S, soon
from swarm.config import Network
from swarm.errors import CannotListen, DirectoryDown, InvalidRecord, NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.directory import Directory, _within, node_of_client
from swarm.network.dht.lookup import ModelEntry, covers
from swarm.network.dht.records import encode
from swarm.network.dht.slots import CROWD, LISTED
from swarm.network.dht.validator import RecordValidator


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        first = await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True)
        yield Lab(stack, await stack.enter_async_context(first))
    assert daemons() == []


async def test_published_records_are_found_until_withdrawn(lab: Lab) -> None:
    (a, directory_a), (b, directory_b) = await lab.peer(), await lab.peer(first=4, last=8)
    client = await lab.join(client_mode=True)
    assert client.addresses == ()
    assert directory_a.addresses[0].endswith(a.peer_id)
    assert await client.peers(MODEL, LAYERS) == [record_of(a), record_of(b, 4, 8)]
    assert await client.models() == [ModelEntry("demo", MODEL, LAYERS, peers=2)]
    assert await client.peers("1" * 32, LAYERS) == []

    await directory_a.withdraw()
    assert await client.peers(MODEL, LAYERS) == [record_of(b, 4, 8)]
    assert await client.models() == [ModelEntry("demo", MODEL, LAYERS, peers=1)]
    await directory_a.withdraw()  # nothing is left to withdraw
    await directory_a.publish(record_of(a, state="draining"))
    assert record_of(a, state="draining") in await directory_b.peers(MODEL, LAYERS)


async def test_whoever_is_cancelled_together_with_an_answer_ends() -> None:
    answer = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(_within(5.0, answer))
    await asyncio.sleep(0)  # it waits now
    answer.set_result("too late")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_peer_that_moved_is_found_at_its_new_place_only(lab: Lab) -> None:
    a, directory = await lab.peer(first=0, last=4)
    await directory.publish(record_of(a, 3, 8))
    assert await lab.bootstrap.peers(MODEL, LAYERS) == [record_of(a, 3, 8)]
    await directory.publish(record_of(a, 0, 4))
    assert await lab.bootstrap.peers(MODEL, LAYERS) == [record_of(a, 0, 4)]


async def test_a_record_that_is_not_refreshed_disappears(lab: Lab) -> None:
    identity = Identity.generate()
    directory = await lab.join(identity)
    await directory.publish(record_of(identity), lifetime_s=0.5)
    assert await lab.bootstrap.peers(MODEL, LAYERS) == [record_of(identity)]

    async def gone() -> bool:
        return not await lab.bootstrap.peers(MODEL, LAYERS) and not await lab.bootstrap.models()

    await eventually(gone)


async def test_only_ones_own_record_can_be_published(lab: Lab) -> None:
    with pytest.raises(InvalidRecord):
        await lab.bootstrap.publish(record_of(Identity.generate()))


async def test_hundreds_of_peers_spread_over_keys_and_are_found(lab: Lab) -> None:
    count = 120
    peers = [Identity.generate() for _ in range(count)]
    directories = crowd([await lab.join() for _ in range(4)], lab.network, peers)
    for start in range(0, len(peers), 12):
        some = range(start, min(start + 12, len(peers)))
        await asyncio.gather(
            *(directories[i].publish(record_of(peers[i], i % 3 * 2, i % 3 * 2 + 4)) for i in some)
        )
    depths = Counter(
        len(key.rsplit("/", 1)[1])
        for d in directories
        for key in d._published
        if "models" not in key
    )
    sizes = Counter(key for d in directories for key in d._published)
    assert set(depths) == {0, 1}
    assert max(sizes.values()) <= CROWD

    client = await lab.join(client_mode=True)
    everybody = await client.survey(MODEL, LAYERS, enough=1000)
    assert (everybody.total, everybody.complete) == (count, True)
    assert {record.peer_id for record in everybody.records} == {peer.peer_id for peer in peers}
    assert list(everybody.records) == sorted(
        everybody.records, key=lambda r: (r.first_layer, r.last_layer, r.peer_id)
    )
    for _ in range(5):
        some = await client.survey(MODEL, LAYERS, enough=1)
        assert not some.complete
        assert len(some.records) < count
        assert count / 4 < some.total < 3 * count
        assert covers(some.records, LAYERS)
    (entry,) = await client.models()
    assert LISTED <= entry.peers < 4 * LISTED
    assert entry.crowd == "8 peers or more"

    leaving = directories[0]
    await leaving.withdraw()
    after = await client.survey(MODEL, LAYERS, enough=1000)
    assert (after.total, len(after.records)) == (count - 1, count - 1)


@pytest.mark.threat("forged-record")
@pytest.mark.parametrize("signs", [False, True])
async def test_nobody_can_overwrite_anothers_record(lab: Lab, signs: bool) -> None:
    victim, _ = await lab.peer()
    attacker = await lab.stranger(Forger(Identity.generate()) if signs else None)
    lie = record_of(victim, state="offline")
    accepted = await attacker.store(
        lie.key(), encode(lie), time.time() + 62, subkey=victim.peer_id, exclude_self=True
    )
    assert not accepted
    # The attacker's own node serves the lie as well, and a reader that asks it does not believe it.
    await attacker.store(lie.key(), encode(lie), time.time() + 62, subkey=victim.peer_id)
    reader = await lab.join(client_mode=True)
    assert await reader.peers(MODEL, LAYERS) == [record_of(victim)]


@pytest.mark.threat("forged-record")
async def test_without_the_validator_the_same_attack_succeeds() -> None:
    async with AsyncExitStack() as stack:
        honest = await plain_node(stack, ())
        address = tuple(map(str, await honest.get_visible_maddrs()))
        attacker, victim = await plain_node(stack, address), Identity.generate()
        truth, lie = record_of(victim), record_of(victim, state="offline")
        assert await honest.store(
            truth.key(), encode(truth), time.time() + 60, subkey=victim.peer_id
        )
        assert await attacker.store(
            lie.key(), encode(lie), time.time() + 62, subkey=victim.peer_id, exclude_self=True
        )
        found = await honest.get(truth.key(), latest=True)
        assert found is not None
        assert found.value[victim.peer_id].value == encode(lie)


@pytest.mark.threat("hiding-record")
@pytest.mark.parametrize("hardened", [True, False])
async def test_a_valid_record_in_the_cache_hides_nobody(
    hardened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hivemind prefers a key's cached records to its stored ones, and takes requests to cache from
    anybody."""
    if not hardened:
        monkeypatch.setattr(swarm.network.dht.node, "_harden", lambda *_: None)
    async with AsyncExitStack() as stack:
        first = await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True)
        lab = Lab(stack, await stack.enter_async_context(first))
        victim, mallory = Identity.generate(), Identity.generate()
        directory = await lab.join(victim)
        await directory.publish(record_of(victim))
        attacker = await lab.stranger(None, client_mode=True)
        spam, expiration = record_of(mallory), time.time() + 64
        key, packed = DHTID.generate(spam.key()), MSGPackSerializer.dumps(encode(spam))
        signer = RecordValidator("test", mallory)
        value = signer.sign_value(
            DHTRecord(key.to_bytes(), MSGPackSerializer.dumps(mallory.peer_id), packed, expiration)
        )
        for node in (lab.bootstrap, directory):
            target = PeerID.from_base58(node.addresses[0].rsplit("/", 1)[1])
            await attacker.protocol.call_store(
                target, [key], [value], expiration, [mallory.peer_id], in_cache=True
            )
        found = {
            record.peer_id
            for record in await (await lab.join(client_mode=True)).peers(MODEL, LAYERS)
        }
        assert mallory.peer_id in found
        assert (victim.peer_id in found) == hardened


async def test_no_bootstrap_node_is_said_at_once() -> None:
    with pytest.raises(NoBootstrap, match="No bootstrap node is configured"):
        await Directory.join(Identity.generate(), Network("test"))
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    with pytest.raises(NoBootstrap) as caught:
        await soon(
            Directory.join(
                Identity.generate(), Network("test", (nobody,)), timeout_s=2 * PATIENCE_S
            )
        )
    assert caught.value.tried == (nobody,)
    assert daemons() == []


async def test_one_bootstrap_node_that_answers_is_enough(lab: Lab) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    network = Network("test", (nobody, *lab.bootstrap.addresses))
    async with await Directory.join(Identity.generate(), network) as directory:
        assert await directory.models() == []


async def test_a_port_in_use_is_said(lab: Lab) -> None:
    port = int(lab.bootstrap.addresses[0].split("/")[4])
    with pytest.raises(CannotListen, match=f"127.0.0.1:{port} .*in use"):
        await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True, port=port)


@pytest.fixture
async def silent_address() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A bootstrap node that takes connections and never says a word, and the event of a first
    connection."""
    connected, over = asyncio.Event(), asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"/ip4/127.0.0.1/tcp/{port}/p2p/{Identity.generate().peer_id}", connected
    over.set()
    server.close()


async def test_a_silent_bootstrap_node_is_given_up(
    silent_address: tuple[str, asyncio.Event],
) -> None:
    address, _ = silent_address
    with pytest.raises(NoBootstrap):
        await Directory.join(Identity.generate(), Network("test", (address,)), timeout_s=1.0)
    assert daemons() == []


async def test_a_cancelled_start_leaves_no_daemon(
    silent_address: tuple[str, asyncio.Event],
) -> None:
    address, connected = silent_address
    joining = asyncio.create_task(Directory.join(Identity.generate(), Network("test", (address,))))
    await soon(connected.wait())
    assert len(daemons()) == 1
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert daemons() == []


async def test_a_missing_daemon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hivemind.p2p.p2p_daemon.P2PD_FILENAME", "no-such-daemon")
    with pytest.raises(DirectoryDown, match="p2pd"):
        await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True)


async def test_a_daemon_that_dies_is_noticed(lab: Lab) -> None:
    _, directory = await lab.peer()
    os.kill(directory._node.daemon._child.pid, signal.SIGKILL)
    await directory._node.daemon._child.wait()
    with pytest.raises(DirectoryDown, match="daemon"):
        await directory.peers(MODEL, LAYERS)
    with pytest.raises(DirectoryDown, match="daemon"):
        await directory.withdraw()
    await directory.close()
    await directory.close()


async def test_a_restarted_bootstrap_node_is_found_again(lab: Lab) -> None:
    identity = Identity.generate()
    first = await Directory.join(identity, Network("test"), bootstrap_node=True)
    network = Network("test", first.addresses)
    port = int(first.addresses[0].split("/")[4])
    peer = Identity.generate()
    async with await Directory.join(peer, network) as directory:
        await directory.publish(record_of(peer))
        await first.close()

        async def alone() -> bool:
            try:
                await directory.publish(record_of(peer))
            except DirectoryDown:
                return True
            return False

        await eventually(alone)
        async with await Directory.join(
            identity, Network("test"), bootstrap_node=True, port=port
        ) as second:

            async def back() -> bool:
                return not await alone() and await second.peers(MODEL, LAYERS) == [record_of(peer)]

            await eventually(back)


@pytest.mark.parametrize("listed", [False, True])
async def test_clients_of_one_identity_find_peers_side_by_side(listed: bool) -> None:
    """As a gateway with several models has them, and several commands of one user."""
    first, peer, me = (Identity.generate() for _ in range(3))
    members = frozenset({first.peer_id, peer.peer_id, me.peer_id}) if listed else None
    async with laboratory(Network("test", members=members), first) as lab:
        await (await lab.join(peer)).publish(record_of(peer))
        clients = [
            await lab.join(node_of_client(me, lab.network), client_mode=True) for _ in range(3)
        ]
        while clients:
            for found in await asyncio.gather(*(client.peers(MODEL, LAYERS) for client in clients)):
                assert [record.peer_id for record in found] == [peer.peer_id]
            await clients.pop().close()


def test_a_client_has_a_node_of_its_own_unless_only_members_may_enter() -> None:
    me = Identity.generate()
    assert node_of_client(me, Network("test")).peer_id != me.peer_id
    assert node_of_client(me, Network("test", members=frozenset({me.peer_id}))) is me
