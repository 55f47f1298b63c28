import random

import pytest

from helpers.slot_writers import Trees
from swarm.network.dht.keys import CAPACITY, LIST_CAPACITY, SIGNPOST, Shard
from swarm.network.dht.slots import CROWD, LIST_INTERVAL_S, LISTED, LOOK_INTERVAL_S, ModelListSlot


def test_a_small_swarm_lies_in_the_root() -> None:
    trees = Trees()
    trees.join(CAPACITY)
    assert {shard.depth for shard in trees.at.values()} == {0}
    trees.join(1)
    assert sorted(shard.depth for shard in trees.at.values())[-2:] == [0, 1]


@pytest.mark.parametrize("peers", [40, 600, 4000])
def test_no_key_holds_more_than_it_should(peers: int) -> None:
    trees = Trees()
    trees.join(peers)
    assert trees.largest == CAPACITY
    for shard, there in trees.under.items():
        if there and shard.depth:
            assert len(trees.under[shard.parent]) == CAPACITY, "the key above is full"


def test_peers_stay_where_they_are_while_nothing_changes() -> None:
    trees = Trees()
    trees.join(300)
    before = dict(trees.at)
    for minute in range(1, 30):
        trees.refresh_all(minute * 60.0)
    assert trees.at == before


def test_those_who_came_at_the_same_moment_spread() -> None:
    trees = Trees()
    trees.join_at_once(500)
    assert trees.largest == 500
    for minute in range(1, 20):
        trees.refresh_all(minute * LOOK_INTERVAL_S)
    assert trees.largest <= CROWD
    assert len(trees.under[Shard(0)]) >= CAPACITY


@pytest.mark.parametrize("share", [0.3, 0.9, 0.97])
def test_after_departures_a_key_that_leads_to_others_shows_it(share: float) -> None:
    trees = Trees()
    trees.join(600)
    trees.leave(share)
    for minute in range(1, 30):
        trees.refresh_all(minute * LOOK_INTERVAL_S)
    for shard, there in trees.under.items():
        if there and shard.depth:
            assert len(trees.under[shard.parent]) >= SIGNPOST
    assert trees.largest <= CROWD


def listing(peer_id: str = "me", seed: int = 0) -> ModelListSlot:
    return ModelListSlot(peer_id, "ours", random.Random(seed))


def ours(count: int) -> list[tuple[str, str]]:
    return [("ours", f"peer {i}") for i in range(count)]


def test_the_first_few_peers_of_a_model_list_it() -> None:
    few, enough = listing(), listing()
    few.saw(ours(LISTED - 1), 0.0)
    enough.saw(ours(LISTED), 0.0)
    assert (few.listed, enough.listed) == (True, False)
    assert few.wanted(0.0) is None
    enough.saw(ours(2), 100.0)
    assert enough.listed, "others have left"


def test_too_many_at_once_become_few_again() -> None:
    everybody = [f"peer {i}" for i in range(100)]
    listings = {peer_id: listing(peer_id) for peer_id in everybody}
    for one in listings.values():
        one.saw([], 0.0)
    assert all(one.listed for one in listings.values())
    for peer_id, one in listings.items():
        others = [
            ("ours", other) for other in everybody if other != peer_id and listings[other].listed
        ]
        one.saw(others, 60.0)
    assert LISTED <= sum(one.listed for one in listings.values()) <= 2 * LISTED


def test_a_list_of_many_models_goes_on_below() -> None:
    one = listing()
    foreign = [(f"model {i}", "peer") for i in range(LIST_CAPACITY)]
    one.saw(foreign, 0.0)
    assert one.wanted(0.0) == 1
    one.saw([], 0.0)
    assert (one.listed, one.depth, one.wanted(0.0)) == (True, 1, None)


def test_in_a_crowd_each_looks_seldom() -> None:
    alone, one_of_many = listing(), listing()
    for one, crowd in ((alone, 1), (one_of_many, 8)):
        one.saw([], 0.0, crowd)
        one.saw([], 100.0, crowd)
    assert alone.wanted(100.0 + 1.5 * LIST_INTERVAL_S) == 0
    assert one_of_many.wanted(100.0 + 3.9 * LIST_INTERVAL_S) is None
