"""Peers that follow the policy cover the model, spread, and come to rest."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.routing.cuts import Cuts
from swarm.routing.placement import ServedSpan, _Coverage, better_span, choose_span

SPEEDS = st.floats(1.0, 1000.0)


def throughput(peers, layers):
    """Return the tokens per second of every layer."""
    return _Coverage.of(peers, layers).speeds.tolist()


def join(peers, layers, capacity, speed, rng, name=None):
    first, last = choose_span(peers, layers, capacity, speed, rng)
    assert 0 <= first < last <= layers
    assert last - first == min(capacity, layers)
    peers.append(ServedSpan(name or f"peer{len(peers)}", first, last, speed))


def counts(peers, layers):
    return [
        sum(peer.first_layer <= layer < peer.last_layer for peer in peers)
        for layer in range(layers)
    ]


def missing(peers, layers):
    return {layer for layer, count in enumerate(counts(peers, layers)) if not count}


def settle(peers, layers, capacities, rng):
    """Everybody follows the policy, one after the other, until all stay; the number of moves."""
    moves = 0
    limit = 4 * len(peers) + layers
    while True:
        before = moves
        for i in rng.sample(range(len(peers)), len(peers)):
            gaps = missing(peers, layers)
            span = better_span(peers, peers[i], layers, capacities[i], rng)
            if span is None:
                continue
            moves += 1
            peers[i] = replace(peers[i], first_layer=span[0], last_layer=span[1])
            assert missing(peers, layers) <= gaps, "a move opened a gap"
            assert moves <= limit, "they do not come to rest"
        if moves == before:
            return moves


@st.composite
def swarms(draw):
    """Peers anywhere, as an unplanned history may have left them."""
    layers = draw(st.integers(1, 24))
    peers, capacities = [], []
    for i in range(draw(st.integers(0, 20))):
        size = draw(st.integers(1, layers))
        first = draw(st.integers(0, layers - size))
        peers.append(ServedSpan(f"peer{i}", first, first + size, draw(SPEEDS)))
        capacities.append(size)
    return layers, peers, capacities, random.Random(draw(st.integers(0, 1000)))


@given(swarms())
def test_throughput_is_the_sum_over_those_that_serve_a_layer(swarm):
    layers, peers, _, _ = swarm
    expected = [
        sum(peer.tokens_per_second for peer in peers if peer.first_layer <= layer < peer.last_layer)
        for layer in range(layers)
    ]
    assert throughput(peers, layers) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(swarms(), st.integers(1, 30), SPEEDS)
def test_no_span_could_help_the_weakest_layers_more(swarm, capacity, speed):
    layers, peers, _, rng = swarm
    size = min(capacity, layers)

    def strengths(first):
        joined = [*peers, ServedSpan("new", first, first + size, speed)]
        pairs = zip(counts(joined, layers), throughput(joined, layers), strict=True)
        return sorted((min(count, 2), round(fast, 3)) for count, fast in pairs)

    first, last = choose_span(peers, layers, capacity, speed, rng)
    assert last - first == size
    best = max(strengths(start) for start in range(layers - size + 1))
    chosen = strengths(first)
    assert [count for count, _ in chosen] == [count for count, _ in best]
    assert [fast for _, fast in chosen] == pytest.approx(
        [fast for _, fast in best], rel=1e-6, abs=0.01
    )


@given(st.lists(SPEEDS, min_size=8, max_size=8), st.integers(0, 10**6))
def test_eight_peers_of_two_layers_serve_eight_layers_twice(speeds, seed):
    rng, peers = random.Random(seed), []
    for speed in speeds:
        join(peers, 8, 2, speed, rng)
        if len(peers) == 4:
            assert not missing(peers, 8)
    assert counts(peers, 8) == [2] * 8
    assert settle(peers, 8, [2] * 8, rng) == 0


@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_spans_of_one_size_fit_without_overlap_if_they_can(size, times, rounds, seed):
    rng, peers, layers = random.Random(seed), [], size * times
    for _ in range(times * rounds):
        join(peers, layers, size, 1.0, rng)
    assert counts(peers, layers) == [rounds] * layers


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(1, 16), st.integers(0, 10**6)
)
def test_layers_are_missing_only_while_there_are_too_few_peers(capacities, layers, seed):
    rng, peers = random.Random(seed), []
    for capacity in capacities:
        gaps = missing(peers, layers)
        join(peers, layers, capacity, rng.uniform(1, 9), rng)
        assert missing(peers, layers) < gaps or not gaps


@settings(deadline=None, max_examples=150)
@given(swarms())
def test_from_any_state_they_come_to_rest_and_open_no_gap(swarm):
    layers, peers, capacities, rng = swarm
    settle(peers, layers, capacities, rng)


@settings(deadline=None)
@given(st.lists(SPEEDS, min_size=8, max_size=8), st.permutations(range(8)), st.integers(0, 10**6))
def test_the_survivors_of_a_mass_death_close_the_gaps(speeds, order, seed):
    rng, peers = random.Random(seed), []
    for speed in speeds:
        join(peers, 8, 2, speed, rng)
    left = [peers[i] for i in order[:5]]
    moves = settle(left, 8, [2] * 5, rng)
    assert not missing(left, 8)
    assert moves <= 3


@given(st.integers(0, 10**6))
def test_a_crowd_in_one_place_spreads(seed):
    rng = random.Random(seed)
    peers = [ServedSpan(f"peer{i}", 0, 2, rng.uniform(90, 110)) for i in range(16)]
    settle(peers, 8, [2] * 16, rng)
    assert min(counts(peers, 8)) >= 3
    rates = throughput(peers, 8)
    assert min(rates) > 0.6 * max(rates)


def test_when_half_of_a_mixed_swarm_dies_a_few_moves_even_it_out():
    rng, layers, peers = random.Random(5), 80, []
    for _ in range(300):
        join(peers, layers, rng.choice((2, 3, 4, 6, 8)), rng.lognormvariate(4, 0.7), rng)
    assert min(throughput(peers, layers)) > 0.85 * sum(throughput(peers, layers)) / layers
    left = [peer for peer in peers if rng.random() < 0.5]
    capacities = [peer.last_layer - peer.first_layer for peer in left]
    assert settle(left, layers, capacities, rng) < len(left) // 2
    assert min(throughput(left, layers)) > 0.7 * sum(throughput(left, layers)) / layers


def test_a_small_difference_in_speed_moves_no_peer():
    rng = random.Random(0)
    peers = [
        ServedSpan(f"peer{i}", first, first + 4, 100.0 + i)
        for i, first in enumerate((0, 0, 0, 4, 4))
    ]
    peers += [ServedSpan("slow", 4, 8, 80.0)]
    assert all(better_span(peers, peer, 8, 4, rng) is None for peer in peers)


def test_a_layer_with_one_fast_peer_is_weaker_than_one_with_two_slow_ones():
    peers = [ServedSpan("a", 0, 2, 1000.0), ServedSpan("b", 2, 4, 1.0), ServedSpan("c", 2, 4, 1.0)]
    assert choose_span(peers, 4, 2, 1.0, random.Random(0)) == (0, 2)


def test_layers_that_no_other_peer_serves_are_not_left():
    mine = ServedSpan("mine", 0, 2, 1.0)
    others = [ServedSpan("a", 1, 4, 1.0)]
    assert better_span([mine, *others], mine, 8, 2, random.Random(0)) is None
    assert (
        better_span([mine, *others, ServedSpan("b", 0, 1, 1.0)], mine, 8, 2, random.Random(0))
        is not None
    )


def test_a_span_begins_or_ends_where_others_do_if_that_costs_nothing():
    peers = [ServedSpan(name, 0, 8, 1.0) for name in "abc"]
    peers += [ServedSpan(name, *span, 1.0) for name in "de" for span in ((0, 3), (5, 8))]
    spans = {choose_span(peers, 8, 4, 1.0, random.Random(seed)) for seed in range(50)}
    assert spans == {(1, 5), (3, 7)}


def test_equal_spans_are_chosen_by_lot():
    chosen = Counter(choose_span([], 8, 2, 1.0, random.Random(seed)) for seed in range(200))
    assert set(chosen) == {(0, 2), (2, 4), (4, 6), (6, 8)}
    assert min(chosen.values()) > 20


def test_more_capacity_than_layers_takes_them_all():
    assert choose_span([], 3, 10, 1.0, random.Random(0)) == (0, 3)


@settings(deadline=None)
@given(
    st.sets(st.integers(1, 11)), st.lists(SPEEDS, min_size=1, max_size=12), st.integers(0, 10**6)
)
def test_wherever_a_model_may_be_cut_it_is_covered_and_peers_come_to_rest(places, speeds, seed):
    cuts, rng, peers = Cuts(12, tuple(sorted(places))), random.Random(seed), []
    capacity = max(last - first for first, last in pairwise(cuts.borders))
    for speed in speeds:
        gaps = missing(peers, 12)
        span = choose_span(peers, 12, capacity, speed, rng, cuts)
        assert cuts.allow(*span)
        peers.append(ServedSpan(f"peer{len(peers)}", *span, speed))
        assert missing(peers, 12) < gaps or not gaps
    for _ in range(4 * len(peers) + 12):
        gaps = missing(peers, 12)
        wishes = (better_span(peers, mine, 12, capacity, rng, cuts) for mine in peers)
        moved = next(((i, span) for i, span in enumerate(wishes) if span), None)
        if moved is None:
            return
        i, span = moved
        assert cuts.allow(*span)
        peers[i] = replace(peers[i], first_layer=span[0], last_layer=span[1])
        assert missing(peers, 12) <= gaps
    raise AssertionError("they do not come to rest")
