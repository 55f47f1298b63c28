"""Many nodes of an attacker's near a key, among real nodes whose calls are carried in one
process."""

from __future__ import annotations

import secrets
import time

import pytest

from helpers.dht_in_process import Swarm, trial
from helpers.records import peer_record
from swarm.identity import Identity
from swarm.network.dht import eclipse
from swarm.network.dht.eclipse import AROUND, NEAR
from swarm.network.dht.records import encode

NODES = 50  # honest ones
KEYS = 8


@pytest.mark.threat("sybil-key")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_record_is_found_although_nodes_around_its_key_forget_it(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the defence it takes more than as many nodes as hide a record without it.

    A crowd may go unnoticed.
    """
    if not defended:
        monkeypatch.setattr(eclipse, "CROWDED", float("inf"))
    swarm = await Swarm.start(NODES)
    found = [(await trial(swarm, sybils=NEAR))[0] for _ in range(KEYS)]
    assert sum(found) >= KEYS // 4 if defended else sum(found) <= 1


async def test_nobody_pays_for_it_while_there_is_no_crowd() -> None:
    swarm = await Swarm.start(NODES)
    calls = [(await trial(swarm, sybils=0))[1] for _ in range(KEYS)]
    assert sorted(calls)[KEYS // 2] < 2 * 16


async def test_places_are_looked_at_anew_after_a_while() -> None:
    swarm = await Swarm.start(AROUND)
    node = swarm.nodes[0]
    before = node.daemon.gate.eclipse.place
    await node.gauge()
    assert node.daemon.gate.eclipse.place == before
    node.gauged_at -= 1e6
    await node.gauge()
    assert node.daemon.gate.eclipse.place != before


async def test_records_of_several_keys_are_stored_and_found() -> None:
    swarm, identity = await Swarm.start(12), Identity.generate()
    publisher = await swarm.join(identity)
    records = [peer_record(identity.peer_id, fingerprint=secrets.token_hex(16)) for _ in range(3)]
    values = {record.key(): encode(record) for record in records}
    assert await publisher.store(values, dict.fromkeys(values, time.time() + 60), identity.peer_id)
    reader = await swarm.join(Identity.generate(), client_mode=True)
    found = await reader.find([*values, "nothing"])
    assert {key: item and item.value[identity.peer_id].value for key, item in found.items()} == {
        **values,
        "nothing": None,
    }
