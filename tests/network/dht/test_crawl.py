import random
from collections import Counter
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.slot_writers import Trees
from swarm.network.dht.crawl import MAX_SHARDS, Crawl, CrawlSample
from swarm.network.dht.keys import CAPACITY, MAX_DEPTH, Shard


def read(
    trees: Trees, seed: int = 0, enough: int = 1, **options: object
) -> tuple[CrawlSample[str], Crawl[str]]:
    survey: Crawl[str] = Crawl([0], enough, random.Random(seed), **options)  # type: ignore[arg-type]
    while shards := survey.wanted():
        survey.saw({shard: sorted(trees.under[shard]) for shard in shards})
    return survey.sample(), survey


def swarm_of(peers: int, seed: int = 0) -> Trees:
    trees = Trees(seed)
    trees.join(peers)
    return trees


@pytest.mark.parametrize("peers", [0, 1, 3, CAPACITY, 2 * CAPACITY, 100, 250])
def test_a_small_swarm_is_seen_whole(peers: int) -> None:
    trees = swarm_of(peers)
    sample, _ = read(trees, enough=256)
    assert set(sample.records) == set(trees.at)
    assert len(sample.records) == peers
    assert (sample.total, sample.complete, set(sample.weights) <= {1.0}) == (peers, True, True)


def test_an_almost_empty_swarm_costs_one_key() -> None:
    _, survey = read(swarm_of(3), enough=256)
    assert len(survey._read) == 1


def test_a_large_swarm_costs_little() -> None:
    sample, survey = read(swarm_of(5000))
    assert not sample.complete
    assert len(survey._read) <= MAX_DEPTH + 1
    assert survey.records_read <= CAPACITY * (MAX_DEPTH + 1)
    assert len(sample.records) >= CAPACITY // 2


def test_the_number_of_peers_is_estimated_without_bias() -> None:
    trees = swarm_of(3000)
    totals = [read(trees, seed)[0].total for seed in range(300)]
    assert 2900 < mean(totals) < 3100
    assert all(1500 < total < 6000 for total in totals)
    assert 2800 < mean(sum(read(trees, seed)[0].weights) for seed in range(300)) < 3200


def test_no_peer_is_seen_twice_as_often_as_another() -> None:
    trees = swarm_of(500)
    seen: Counter[str] = Counter()
    for seed in range(4000):
        seen.update(read(trees, seed)[0].records)
    depths = Counter(shard.depth for shard in trees.at.values())
    by_depth: Counter[int] = Counter()
    for peer_id, times in seen.items():
        by_depth[trees.at[peer_id].depth] += times
    rates = [by_depth[depth] / depths[depth] for depth in depths]
    assert min(rates) > 0.5 * max(rates), "old peers near the root carry no more than others"
    assert len(seen) == 500


def test_a_reader_that_is_not_satisfied_reads_on() -> None:
    trees = swarm_of(400)
    rare = max(trees.at, key=lambda peer_id: trees.at[peer_id].depth)
    for seed in range(20):
        sample, _ = read(trees, seed, satisfied=lambda peers: rare in set(peers))
        assert rare in sample.records


def test_but_not_for_ever() -> None:
    _, survey = read(swarm_of(8000), satisfied=lambda peers: False)
    assert len(survey._read) <= MAX_SHARDS


def test_records_that_do_not_count_still_show_the_way() -> None:
    trees = swarm_of(100)
    root = trees.under[Shard(0)]
    sample, _ = read(trees, enough=256, counts=lambda peer_id: peer_id not in root)
    assert set(sample.records) == set(trees.at) - root
    assert sample.total == 100 - CAPACITY


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**32), st.floats(0, 1))
def test_whatever_the_swarm_a_complete_sample_has_everybody_in_reach(
    peers: int, seed: int, leave: float
) -> None:
    trees = swarm_of(peers, seed)
    trees.leave(leave)
    sample, survey = read(trees, seed, enough=10_000)
    assert sample.complete or len(survey._read) == MAX_SHARDS
    assert len(set(sample.records)) == len(sample.records)
    assert set(sample.records) <= set(trees.at)
