import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from helpers.loopback import soon
from helpers.records import peer_record
from swarm.errors import DirectoryDown, InvalidRecord
from swarm.identity import Identity
from swarm.network.dht.keys import CAPACITY
from swarm.network.dht.publication import Publication, announce
from swarm.network.dht.records import ModelRecord, PeerRecord, Record
from swarm.network.dht.slots import LISTED

US = Identity.generate()


def record_of(identity: Identity = US, **changes: Any) -> PeerRecord:
    return peer_record(identity.peer_id, **changes)


def settled(
    under: Mapping[str, Sequence[Record]], record: PeerRecord | None = None
) -> tuple[Publication, list[str]]:
    """An announcement in a world where these records lie, and the keys that it looked at."""
    announcement, looked = Publication(record or record_of(), random.Random(0)), []
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


class FakeDirectory:
    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures
        self.published: list[PeerRecord] = []
        self.calls = 0
        self.three_published = asyncio.Event()

    async def publish(self, record: PeerRecord) -> None:
        self.calls += 1
        if error := self.failures.get(self.calls):
            raise error
        self.published.append(record)
        if len(self.published) == 3:
            self.three_published.set()


async def test_a_failed_refresh_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    directory = FakeDirectory({2: DirectoryDown("nobody answers")})
    speeds = iter(range(1000))
    task = asyncio.create_task(
        announce(
            directory,
            lambda: PeerRecord.model_construct(tokens_per_second=next(speeds)),
            interval_s=0,
        )
    )
    await soon(directory.three_published.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.tokens_per_second for record in directory.published[:3]] == [0, 2, 3]
    assert "nobody answers" in caplog.text


async def test_our_own_mistakes_are_not_swallowed() -> None:
    with pytest.raises(InvalidRecord):
        await announce(
            FakeDirectory({1: InvalidRecord("ours")}), PeerRecord.model_construct, interval_s=0
        )
