"""While a model's texts stall, its new requests wait without a place; else nothing is checked."""

import asyncio

import pytest

from helpers.loopback import eventually
from swarm.errors import MissingLayers
from swarm.gateway import availability
from swarm.gateway.availability import SILENT_S, Availability


class Swarm:
    """A chain that exists or not, with a clock of its own."""

    def __init__(self, expected=True):
        self.now = 0.0
        self.looks = 0
        self.there = False
        self.expected = expected
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.availability = Availability(self.find_chain, lambda: self.now)

    async def find_chain(self):
        self.looks += 1
        await self.go_on.wait()
        self.now += 1.0
        if not self.there:
            raise MissingLayers("m", ((0, 4),), 4, 0, self.expected)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(availability, "PAUSE_S", 0.0)


async def test_a_model_that_is_not_doubted_is_not_looked_at():
    swarm = Swarm()
    await swarm.availability.wait_until_likely()
    swarm.availability.text_started()
    swarm.now += SILENT_S
    await swarm.availability.wait_until_likely()
    swarm.now += SILENT_S
    swarm.availability.token_arrived()
    await swarm.availability.wait_until_likely()
    swarm.availability.text_ended()
    swarm.now += 100.0
    await swarm.availability.wait_until_likely()
    assert swarm.looks == 0


async def test_texts_that_bring_nothing_are_doubted_and_a_chain_ends_the_doubt(monkeypatch):
    monkeypatch.setattr(availability, "PATIENCE_S", 1e9)
    swarm = Swarm()
    swarm.availability.text_started()
    swarm.now += SILENT_S + 1
    waiting = asyncio.create_task(swarm.availability.wait_until_likely())
    await eventually(lambda: swarm.looks > 3)
    assert not waiting.done()
    swarm.there = True
    await waiting


async def test_a_text_that_failed_for_want_of_peers_makes_the_next_ones_look():
    swarm = Swarm(expected=False)
    swarm.availability.text_started()
    swarm.availability.text_ended(for_want_of_peers=True)
    with pytest.raises(MissingLayers):
        await swarm.availability.wait_until_likely()
    swarm.there = True
    await swarm.availability.wait_until_likely()
    assert swarm.looks == 2
    await swarm.availability.wait_until_likely()
    assert swarm.looks == 2


async def test_peers_that_are_expected_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(availability, "PATIENCE_S", 5.0)
    swarm = Swarm()
    swarm.availability.text_started()
    swarm.availability.text_ended(for_want_of_peers=True)
    with pytest.raises(MissingLayers):
        await swarm.availability.wait_until_likely()
    assert 5 <= swarm.looks <= 7


async def test_texts_that_stand_still_are_told_when_no_chain_is_there_any_more(monkeypatch):
    monkeypatch.setattr(availability, "SILENT_S", 0.0)
    swarm = Swarm()
    swarm.there = True
    swarm.availability.text_started()
    gone = asyncio.create_task(swarm.availability.wait_until_gone())
    swarm.now += 1.0
    await eventually(lambda: swarm.looks > 3)
    assert not gone.done()
    swarm.there = False
    await gone
    swarm.availability.text_ended()
    assert swarm.availability.in_doubt


async def test_a_text_that_starts_after_that_is_told_at_once(monkeypatch):
    monkeypatch.setattr(availability, "SILENT_S", 1e9)
    swarm = Swarm()
    swarm.availability.text_started()
    swarm.availability.text_ended(for_want_of_peers=True)
    await swarm.availability.wait_until_gone()


async def test_those_who_ask_at_the_same_time_share_a_look():
    swarm = Swarm(expected=False)
    swarm.go_on.clear()
    asking = [asyncio.create_task(swarm.availability.check()) for _ in range(20)]
    await eventually(lambda: swarm.looks == 1)
    swarm.go_on.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in told] == [MissingLayers] * 20
    assert swarm.looks == 1


async def test_who_leaves_amid_a_look_leaves_it_to_the_next():
    swarm = Swarm()
    swarm.there = True
    swarm.go_on.clear()
    first, second = (asyncio.create_task(swarm.availability.check()) for _ in range(2))
    await eventually(lambda: swarm.looks == 1)
    first.cancel()
    swarm.go_on.set()
    await second
    assert swarm.looks == 2
