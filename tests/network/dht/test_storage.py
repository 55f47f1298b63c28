"""Floods of records, against the storage alone and against real nodes."""

from __future__ import annotations

import time

import pytest
from hivemind.dht.routing import DHTID
from hivemind.utils import MSGPackSerializer

from helpers.dht import LAYERS, MODEL, laboratory, peer_id_of, record_of, signed_value
from swarm.identity import Identity
from swarm.network.dht import storage as shelf
from swarm.network.dht.keys import CAPACITY, LIST_CAPACITY
from swarm.network.dht.storage import MAX_KEY_BYTES, MAX_RECORDS, BoundedStorage
from swarm.util.rates import Rate, TokenBuckets

KEY, OTHER = DHTID.generate("key"), DHTID.generate("other")


def records_in(storage: BoundedStorage, key: DHTID = KEY) -> dict[str, tuple[bytes, float]]:
    item = storage.get(key)
    return {} if item is None else dict(item.value.items())


@pytest.fixture
def no_bounds(monkeypatch: pytest.MonkeyPatch, defended: bool) -> None:
    if not defended:
        for bound in ("MAX_RECORDS", "MAX_KEY_BYTES", "MAX_WRITES", "MAX_BYTES"):
            monkeypatch.setattr(shelf, bound, 1 << 40)


flood = pytest.mark.parametrize("defended", [True, False])


@flood
@pytest.mark.threat("flooded-key")
@pytest.mark.usefixtures("no_bounds")
def test_many_small_records_fill_a_key_so_far(defended: bool) -> None:
    storage, soon = BoundedStorage(), time.time() + 60
    assert storage.store_subkey(KEY, "honest", b"old", soon)
    stored = [
        storage.store_subkey(KEY, f"flooder {i}", b"spam", soon + 4) for i in range(2 * MAX_RECORDS)
    ]
    assert sum(stored) == (MAX_RECORDS - 1 if defended else 2 * MAX_RECORDS)
    assert storage.store_subkey(KEY, "honest", b"new", soon + 1), "who is there may stay"
    assert records_in(storage)["honest"] == (b"new", soon + 1)
    assert storage.store_subkey(OTHER, "late", b"here", soon), "other keys are as they were"


@flood
@pytest.mark.threat("flooded-key")
@pytest.mark.usefixtures("no_bounds")
def test_large_records_fill_a_key_so_far(defended: bool) -> None:
    storage, soon = BoundedStorage(), time.time() + 60
    for i in range(2 * MAX_RECORDS):
        storage.store_subkey(KEY, f"flooder {i:44}", bytes(1091), soon)
    size = len(MSGPackSerializer.dumps(storage.get(KEY).value))
    assert (size <= MAX_KEY_BYTES) == defended
    assert not defended or size > MAX_KEY_BYTES // 2


@flood
@pytest.mark.threat("flooded-key")
@pytest.mark.usefixtures("no_bounds")
def test_one_peer_writes_so_often(defended: bool) -> None:
    now = time.time()
    storage = BoundedStorage(lambda: now)
    keys = [DHTID.generate(f"key {i}") for i in range(100)]
    stored = [storage.store_subkey(key, "flooder", b"spam", now + 60) for key in keys]
    assert sum(stored) == (shelf.MAX_WRITES if defended else 100)
    assert storage.store_subkey(KEY, "honest", b"here", now + 60)


@flood
@pytest.mark.threat("flooded-key")
def test_all_together_write_so_much(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_BYTES", 20_000 if defended else 1 << 40)
    now = time.time()
    storage = BoundedStorage(lambda: now)
    stored = [
        storage.store_subkey(DHTID.generate(f"key {i}"), f"{i}", bytes(872), now + 60)
        for i in range(50)
    ]
    assert sum(stored) == (20 if defended else 50)


def test_a_peer_pays_no_write_for_what_all_together_have_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "MAX_BYTES", 1000)
    monkeypatch.setattr(shelf, "MAX_WRITES", 1)
    now = time.time()
    storage = BoundedStorage(lambda: now)
    assert storage.store_subkey(KEY, "flooder", bytes(872), now + 300)
    assert not storage.store_subkey(KEY, "honest", bytes(872), now + 300)
    monkeypatch.setattr(storage, "_bytes", TokenBuckets(Rate(1.0, 1128), lambda: now))
    assert storage.store_subkey(KEY, "honest", bytes(872), now + 300)
    assert not storage.store_subkey(OTHER, "flooder", b"", now + 300), "it has had its share"
    assert storage.store_subkey(OTHER, "other", b"", now + 300), "and others have not paid for it"


def test_it_is_hiveminds_storage_otherwise() -> None:
    storage, soon = BoundedStorage(), time.time() + 60
    assert storage.store(KEY, b"a", soon, subkey="peer")
    assert storage.store_subkey(KEY, "peer", b"a", soon), "once more the same is no refusal"
    assert not storage.store_subkey(KEY, "peer", b"b", soon)
    assert not storage.store_subkey(KEY, "peer", b"b", soon - 1)
    assert storage.store_subkey(KEY, "peer", b"b", soon + 1)
    assert not storage.store_subkey(KEY, "late", b"b", time.time() - 1)
    assert records_in(storage) == {"peer": (b"b", soon + 1)}


def test_the_bounds_leave_room_for_what_keys_are_meant_to_hold() -> None:
    assert MAX_RECORDS > 4 * CAPACITY
    assert MAX_RECORDS > LIST_CAPACITY * 3 // 2


@flood
@pytest.mark.threat("flooded-key")
@pytest.mark.usefixtures("no_bounds")
async def test_a_flood_leaves_who_was_there_and_is_read_in_part(defended: bool) -> None:
    async with laboratory() as lab:
        victim, directory = await lab.peer()
        attacker = await lab.stranger(None)
        expiration, key = time.time() + 60, DHTID.generate(record_of(victim).key())
        for _ in range(12):
            many = [Identity.generate() for _ in range(50)]
            values = [signed_value(each, record_of(each), expiration) for each in many]
            subkeys = [each.peer_id for each in many]
            for node in (lab.bootstrap, directory):
                await attacker.protocol.call_store(
                    peer_id_of(node), [key] * 50, values, expiration, subkeys
                )
        await directory.publish(record_of(victim, free_cache_tokens=7))
        reader = await lab.join(client_mode=True)
        found = (await reader.survey(MODEL, LAYERS)).records
        assert record_of(victim, free_cache_tokens=7) in found
        stored = lab.bootstrap._node.dht.protocol.storage.get(key).value
        assert (len(stored) <= MAX_RECORDS) == defended
        assert not defended or MAX_RECORDS // 2 < len(found) <= MAX_RECORDS + 1
