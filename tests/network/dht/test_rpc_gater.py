"""What the gate of a node lets through: members of private swarms, and so much work."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

from helpers.dht import LAYERS, MODEL, Forger, laboratory, peer_id_of, record_of, signed_value
from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.network.dht import rpc_gater as gate
from swarm.network.dht.clock_check import clock_skew_s
from swarm.network.dht.directory import Directory
from swarm.network.dht.rpc_auth import RpcCall
from swarm.network.dht.rpc_gater import FIND, STORE, CallRefused, RpcGater, node_id_of
from swarm.network.nat.dialback import DialRequest, answering, ask

KEY = secrets.token_bytes(32)
PRIVATE = Network("test", key=KEY)
defended_or_not = pytest.mark.parametrize("defended", [True, False])


@defended_or_not
@pytest.mark.threat("stranger-in-directory")
async def test_a_stranger_reads_and_writes_nothing_in_a_private_swarm(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(gate, "RpcAuthenticator", lambda *_: None)
    async with laboratory(PRIVATE) as lab, answering(lab.bootstrap.daemon):
        victim, _ = await lab.peer()
        stranger = await lab.stranger(None, ensure_bootstrap_success=False)
        key, target = DHTID.generate(record_of(victim).key()), peer_id_of(lab.bootstrap)

        read = await stranger.protocol.call_find(target, [key])
        assert (bool(read) and read[key][0] is not None) != defended

        mallory, expiration = Identity.generate(), time.time() + 60
        value = signed_value(mallory, record_of(mallory), expiration)
        stored = await stranger.protocol.call_store(
            target, [key], [value], expiration, [mallory.peer_id]
        )
        assert (stored == [True]) != defended
        found = {
            peer.peer_id for peer in await (await lab.join(client_mode=True)).peers(MODEL, LAYERS)
        }
        assert found == {victim.peer_id} | (set() if defended else {mallory.peer_id})

        assert (await stranger.protocol.call_ping(target) is not None) != defended
        asked = DialRequest(address="127.0.0.1:1", certificate="0" * 64)
        assert bool(await ask(stranger.p2p, lab.bootstrap.addresses, asked)) != defended


@pytest.mark.threat("stranger-in-directory")
async def test_without_the_right_key_nobody_enters() -> None:
    async with laboratory(PRIVATE) as lab:
        for key in (None, bytes(32)):
            with pytest.raises(NoBootstrap):
                await Directory.join(
                    Identity.generate(), Network("test", lab.bootstrap.addresses, key)
                )
    async with laboratory() as lab:
        with pytest.raises(NoBootstrap):
            await Directory.join(Identity.generate(), Network("test", lab.bootstrap.addresses, KEY))


async def test_members_find_each_other_tell_the_time_and_dial_back() -> None:
    async with laboratory(PRIVATE) as lab, answering(lab.bootstrap.daemon):
        victim, _ = await lab.peer()
        client = await lab.join(client_mode=True)
        assert await client.peers(MODEL, LAYERS) == [record_of(victim)]
        assert abs(await clock_skew_s(lab.network)) < 5
        asked = DialRequest(address="127.0.0.1:1", certificate="0" * 64)
        (answer,) = await ask(client.daemon, lab.bootstrap.addresses, asked)
        assert answer.seen == ("127.0.0.1",)


@defended_or_not
@pytest.mark.threat("stranger-in-directory")
async def test_who_is_not_on_the_list_reads_and_writes_nothing(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, member, mallory = Identity.generate(), Identity.generate(), Identity.generate()
    network = Network("test", members=frozenset({first.peer_id, member.peer_id}))
    if not defended:
        monkeypatch.setattr(Network, "admits", lambda *_: True)
    async with laboratory(network, first) as lab:
        directory = await lab.join(member)
        await directory.publish(record_of(member))
        outsider = await lab.stranger(Forger(mallory), ensure_bootstrap_success=False)
        key, target, expiration = (
            DHTID.generate(record_of(member).key()),
            peer_id_of(lab.bootstrap),
            time.time() + 60,
        )
        read = await outsider.protocol.call_find(target, [key])
        assert (bool(read) and read[key][0] is not None) != defended
        value = signed_value(mallory, record_of(mallory), expiration)
        stored = await outsider.protocol.call_store(
            target, [key], [value], expiration, [mallory.peer_id]
        )
        assert (stored == [True]) != defended
        assert (outsider.p2p.peer_id in lab.bootstrap._node.dht.protocol.routing_table) != defended
        assert (
            mallory.peer_id in {peer.peer_id for peer in await directory.peers(MODEL, LAYERS)}
        ) != defended


class Work:
    """Counts what is worked on; goes on when it may."""

    def __init__(self) -> None:
        self.done, self.go_on, self.answer = 0, asyncio.Event(), dht_pb2.StoreResponse()
        self.go_on.set()

    async def __call__(self, message: Any) -> Any:
        self.done += 1
        await self.go_on.wait()
        return self.answer


def store_request(size: int, keys: int = 1) -> bytes:
    return dht_pb2.StoreRequest(keys=[b"k"] * keys, values=[bytes(size)]).SerializeToString()


async def send(
    gate: RpcGater, work: Work, request: bytes, caller: str = "mallory", name: str = STORE
) -> bool:
    kind = dht_pb2.StoreRequest if name == STORE else dht_pb2.FindRequest
    try:
        await gate.answer(RpcCall(name, caller, "us"), request, kind.FromString, work)
    except ValueError:
        return False
    return True


@defended_or_not
@pytest.mark.threat("flooded-key")
async def test_a_caller_stores_so_much_a_minute(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(gate, "STORE_BYTES", 1 << 40)
    monkeypatch.setattr(gate, "SHARED_STORE_BYTES", 100_000)
    now, work = 0.0, Work()
    ours = RpcGater(Network("test"), clock=lambda: now)
    passed = [await send(ours, work, store_request(10_000)) for _ in range(40)]
    assert sum(passed) == work.done == ours.answered == (6 + 9 if defended else 40)
    assert ours.refused == 40 - work.done
    assert await send(ours, work, store_request(10_000), caller="alice"), (
        "others have a share of their own"
    )
    now = 60.0
    assert await send(ours, work, store_request(10_000))


@defended_or_not
@pytest.mark.threat("flooded-key")
async def test_so_many_calls_are_answered_at_once(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(gate, "MAX_AT_ONCE_A_CALLER", 1000)
    ours, work = RpcGater(Network("test")), Work()
    work.go_on.clear()
    calls = [asyncio.create_task(send(ours, work, store_request(1))) for _ in range(100)]
    other = asyncio.create_task(send(ours, work, store_request(1), caller="alice"))
    await asyncio.sleep(0)
    work.go_on.set()
    assert sum(await asyncio.gather(*calls)) == (64 if defended else 100)
    assert await other
    assert not len(ours._at_once)


@defended_or_not
@pytest.mark.threat("flooded-key")
async def test_one_call_asks_for_so_much(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes that ask for the same large key many times would bring gigabytes."""
    if not defended:
        monkeypatch.setattr(gate, "MAX_KEYS_TO_FIND", 1 << 40)
        monkeypatch.setattr(gate, "MAX_KEYS_TO_STORE", 1 << 40)
    ours, work = RpcGater(Network("test")), Work()
    many = dht_pb2.FindRequest(keys=[b"k"] * 17).SerializeToString()
    assert await send(ours, work, many, name=FIND) != defended
    assert await send(ours, work, store_request(1, keys=1025)) != defended
    assert work.done == (0 if defended else 2)
    assert await send(
        ours, work, dht_pb2.FindRequest(keys=[b"k"] * 16).SerializeToString(), name=FIND
    )


@defended_or_not
@pytest.mark.threat("flooded-key")
@pytest.mark.parametrize(
    ("bound", "amount", "passes"), [("MAX_CALLS", 7, 7), ("SENT_BYTES", 35, 4)]
)
async def test_a_caller_asks_so_often_and_gets_so_much(
    defended: bool, bound: str, amount: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, bound, amount if defended else 1 << 40)
    now, work = 0.0, Work()
    work.answer = dht_pb2.StoreResponse(store_ok=[True] * 8)
    assert len(work.answer.SerializeToString()) == 10
    ours = RpcGater(Network("test"), clock=lambda: now)
    passed = [await send(ours, work, store_request(1)) for _ in range(20)]
    assert sum(passed) == work.done == (passes if defended else 20)
    assert await send(ours, work, store_request(1), caller="alice")
    now = 60.0
    assert await send(ours, work, store_request(1))


async def test_strangers_cost_no_work() -> None:
    ours, work = RpcGater(PRIVATE), Work()
    assert not await send(ours, work, store_request(1))
    assert not await send(ours, work, b"")
    assert work.done == 0
    assert not len(ours._stores), "nor do they use up anything"


async def answered(results: list[dht_pb2.FindResult], keys: int = 1) -> dht_pb2.FindResponse:
    async def reply(_: bytes) -> bytes:
        return dht_pb2.FindResponse(results=results).SerializeToString()

    request = dht_pb2.FindRequest(keys=[b"k"] * keys)
    parse = dht_pb2.FindResponse.FromString
    return await RpcGater(Network("test")).ask(RpcCall(FIND, "us", "them"), request, reply, parse)


@defended_or_not
@pytest.mark.threat("sybil-key")
async def test_a_node_is_where_its_id_says(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one node could claim all places near a key, and an answer could name as many as it
    likes."""
    if not defended:
        monkeypatch.setattr(gate, "_sift", lambda _: None)
    honest, liar = (PeerID.from_base58(Identity.generate().peer_id) for _ in range(2))
    near = DHTID.generate("key").to_bytes()
    named = dht_pb2.FindResult(
        nearest_node_ids=[near, node_id_of(honest).to_bytes()],
        nearest_peer_ids=[liar.to_bytes(), honest.to_bytes()],
    )
    (result,) = (await answered([named])).results
    assert (near in result.nearest_node_ids) != defended
    assert honest.to_bytes() in result.nearest_peer_ids

    crowd = [PeerID.from_base58(Identity.generate().peer_id) for _ in range(30)]
    ids = [node_id_of(peer).to_bytes() for peer in crowd]
    many = dht_pb2.FindResult(
        nearest_node_ids=ids, nearest_peer_ids=[peer.to_bytes() for peer in crowd]
    )
    (result,) = (await answered([many])).results
    assert len(result.nearest_node_ids) == len(result.nearest_peer_ids) == (20 if defended else 30)


def records(count: int) -> dht_pb2.FindResult:
    made = DictionaryDHTValue()
    with made.freeze():
        for number in range(count):
            made.store(number, b"", 1e10)
    return dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=MSGPackSerializer.dumps(made))


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"\x90", MSGPackSerializer.dumps([1, 2]), b"\xc7\x01\x50\x90", b"\x93" * 99],
)
async def test_answers_that_make_no_sense_are_nothing(value: bytes) -> None:
    (result,) = (
        await answered([dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value)])
    ).results
    assert result.type == dht_pb2.NOT_FOUND


@pytest.mark.threat("flooded-key")
async def test_what_is_too_large_is_not_read() -> None:
    large = dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=bytes(gate.MAX_KEY_BYTES + 1))
    results = (await answered([large, records(256), records(257)], keys=3)).results
    assert (results[0].type, results[0].value) == (dht_pb2.NOT_FOUND, b"")
    assert results[1] == records(256)
    assert results[2].type == dht_pb2.NOT_FOUND
    with pytest.raises(CallRefused, match="bytes"):
        await answered([large] * 8, keys=1)
