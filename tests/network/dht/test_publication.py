import random
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.records import peer_record
from swarm.identity import Identity
from swarm.network.dht.keys import CAPACITY
from swarm.network.dht.publication import Announcement
from swarm.network.dht.records import ModelRecord, PeerRecord, Record
from swarm.network.dht.slots import LISTED

US = Identity.generate()


def record_of(identity: Identity = US, **changes: Any) -> PeerRecord:
    return peer_record(identity.peer_id, **changes)


def settled(
    under: Mapping[str, Sequence[Record]], record: PeerRecord | None = None
) -> tuple[Announcement, list[str]]:
    """An announcement in a world where these records lie, and the keys that it looked at."""
    announcement, looked = Announcement(record or record_of(), random.Random(0)), []
    while keys := announcement.wanted(0.0):
        looked += keys
        announcement.saw(
            {key: [(other, 60.0) for other in under.get(key, ())] for key in keys}, 0.0
        )
    return announcement, looked


def test_the_first_peer_lies_in_the_root_and_lists_its_model() -> None:
    ours = record_of()
    announcement, looked = settled({})
    assert looked == [ours.key(), ours.model_record().key()]
    stores = announcement.stores(ours)
    assert stores == {ours.key(): ours, ours.model_record().key(): ours.model_record()}
    assert isinstance(stores[ours.model_record().key()], ModelRecord)


def test_a_peer_among_many_lies_below_and_lists_nothing() -> None:
    ours = record_of()
    others = [record_of(Identity.generate()) for _ in range(CAPACITY)]
    entries = [other.model_record() for other in others[:LISTED]]
    announcement, looked = settled({ours.key(): others, ours.model_record().key(): entries})
    assert looked == [ours.key(), ours.model_record().key(), ours.key(1)]
    assert announcement.stores(ours) == {ours.key(1): ours}


def test_neither_those_who_left_nor_our_own_records_take_up_room() -> None:
    ours = record_of()
    gone = [record_of(Identity.generate(), state="offline") for _ in range(CAPACITY)]
    entries = [other.model_record() for other in gone]
    announcement, _ = settled({ours.key(): [*gone, ours], ours.model_record().key(): entries})
    assert set(announcement.stores(ours)) == {ours.key(), ours.model_record().key()}


def test_it_holds_while_the_span_begins_in_the_same_block() -> None:
    announcement, _ = settled({}, record_of(model_layers=100, first_layer=0, last_layer=4))
    assert announcement.is_for(
        record_of(model_layers=100, first_layer=1, last_layer=9, state="draining")
    )
    assert not announcement.is_for(record_of(model_layers=100, first_layer=50, last_layer=60))
    assert not announcement.is_for(record_of(fingerprint="1" * 32, model_layers=100))
