"""The planned chain is the best of all chains by the cost of its loop."""

from dataclasses import replace
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import MissingLayers
from swarm.routing.chain import Stage
from swarm.routing.plan import MAX_PER_LAYER, MIXED, Candidate, Route, plan, predict, runner_up


def every_chain(candidates, layers, layer=0, used=()):
    """All chains there are in which no peer comes twice."""
    if layer == layers:
        yield []
    for candidate in candidates:
        if candidate.peer_id not in used and candidate.first_layer <= layer < candidate.last_layer:
            for end in range(layer + 1, min(candidate.last_layer, layers) + 1):
                for rest in every_chain(candidates, layers, end, (*used, candidate.peer_id)):
                    yield [Stage(candidate.peer_id, layer, end), *rest]


def loop_ms(chain, candidates, measured):
    peers = {candidate.peer_id: candidate for candidate in candidates}
    total = (peers[chain[0].peer_id].rtt_ms + peers[chain[-1].peer_id].rtt_ms) / 2
    for stage in chain:
        peer = peers[stage.peer_id]
        total += peer.fixed_ms + (stage.last - stage.first) * peer.layer_ms
    for a, b in pairwise(chain):
        by_client = (peers[a.peer_id].rtt_ms + peers[b.peer_id].rtt_ms) / 2
        both = ((a.peer_id, b.peer_id), (b.peer_id, a.peer_id))
        total += min(by_client, *(measured.get(pair, by_client) for pair in both))
    return total


@st.composite
def swarms(draw):
    layers = draw(st.integers(1, 5))
    spans = st.tuples(st.integers(0, layers - 1), st.integers(1, layers + 1)).filter(
        lambda span: span[0] < span[1]
    )
    ms = st.integers(0, 20).map(float)
    candidates = [
        Candidate(chr(ord("a") + i), *span, draw(ms), draw(ms), draw(ms))
        for i, span in enumerate(draw(st.lists(spans, max_size=5)))
    ]
    pairs = [(a.peer_id, b.peer_id) for a in candidates for b in candidates if a is not b]
    known = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    measured = {pair: draw(ms) for pair in known}
    return layers, [with_neighbours(candidate, measured) for candidate in candidates], measured


def with_neighbours(candidate, measured):
    near = {b: ms for (a, b), ms in measured.items() if a == candidate.peer_id}
    return replace(candidate, neighbours_ms=near)


@settings(max_examples=80, deadline=None)
@given(swarms())
def test_no_chain_has_a_shorter_loop(swarm):
    layers, candidates, measured = swarm
    chains = list(every_chain(candidates, layers))
    if not chains:
        with pytest.raises(MissingLayers):
            plan(candidates, layers)
        return
    found = plan(candidates, layers)
    assert list(found.stages) in chains
    assert found.loop_ms == pytest.approx(loop_ms(found.stages, candidates, measured))
    assert found.loop_ms == pytest.approx(
        min(loop_ms(chain, candidates, measured) for chain in chains)
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 5),
    st.lists(st.tuples(*[st.integers(0, 9).map(float)] * 3), min_size=2, max_size=4),
    st.data(),
)
def test_a_peer_that_was_left_is_not_entered_again(layers, peers, data):
    """One slow peer serves all layers, near ones a few of them: leaving and returning would pay."""
    candidates = [Candidate("all", 0, layers, 0.0, 0.0, 20.0)]
    for i, (rtt, fixed, layer) in enumerate(peers):
        first = data.draw(st.integers(0, layers - 1))
        candidates.append(
            Candidate(f"p{i}", first, data.draw(st.integers(first + 1, layers)), rtt, fixed, layer)
        )
    found = plan(candidates, layers)
    assert found.loop_ms == pytest.approx(
        min(loop_ms(c, candidates, {}) for c in every_chain(candidates, layers))
    )
    assert len({stage.peer_id for stage in found.stages}) == len(found.stages)


def test_the_shortest_loop_is_not_that_of_the_fewest_peers():
    far, near, nearer = (
        Candidate("far", 0, 8, 200.0),
        Candidate("near", 0, 4, 20.0),
        Candidate("nearer", 4, 8, 10.0),
    )
    found = plan([far, near, nearer], 8)
    assert found.stages == (Stage("near", 0, 4), Stage("nearer", 4, 8))
    assert found.loop_ms == 30.0


def test_a_chain_leaves_a_slow_peer_as_soon_as_a_fast_one_can_go_on():
    slow, fast = (
        Candidate("slow", 0, 6, 10.0, layer_ms=30.0),
        Candidate("fast", 2, 8, 10.0, layer_ms=1.0),
    )
    assert plan([slow, fast], 8).stages == (Stage("slow", 0, 2), Stage("fast", 2, 8))


def test_a_measured_link_may_be_shorter_than_the_way_by_the_client_and_is_never_taken_for_longer():
    a, b, c = Candidate("a", 0, 4, 100.0), Candidate("b", 4, 8, 80.0), Candidate("c", 4, 8, 100.0)
    assert plan([a, b, c], 8).stages[1].peer_id == "b"
    near_c = replace(a, neighbours_ms={"c": 1.0, "b": 500.0, "a": 0.0, "stranger": 0.0})
    assert plan([near_c, b, c], 8).stages[1].peer_id == "c"
    assert plan([near_c, b, c], 8).loop_ms == 101.0
    assert plan([a, b, replace(c, neighbours_ms={"a": 2.0})], 8).loop_ms == 102.0, (
        "either may have measured it"
    )
    assert plan([near_c, b], 8).loop_ms == 180.0, "by way of the client"


def test_others_that_wait_at_a_peer_make_it_longer():
    assert (
        plan([Candidate("busy", 0, 8, 10.0, fixed_ms=50.0), Candidate("idle", 0, 8, 40.0)], 8)
        .stages[0]
        .peer_id
        == "idle"
    )


def test_of_equals_the_first_is_taken_so_that_clients_who_shuffle_spread():
    twins = [Candidate(name, 0, 8, 10.0) for name in "xyz"]
    assert plan(twins, 8).stages[0].peer_id == "x"
    assert plan(twins[::-1], 8).stages[0].peer_id == "z"


def test_of_very_many_only_the_best_for_each_layer_are_looked_at():
    crowd = [Candidate(f"c{i}", 0, 8, 50.0 + i) for i in range(3 * MAX_PER_LAYER)]
    rare = Candidate("rare", 8, 9, 900.0)
    assert [stage.peer_id for stage in plan([*reversed(crowd), rare], 9).stages] == ["c0", "rare"]


def test_a_gap_is_named():
    with pytest.raises(MissingLayers) as caught:
        plan([Candidate("a", 0, 3, 1.0)], 8, model="m")
    assert (caught.value.gaps, caught.value.peers) == (((3, 8),), 1)


@settings(max_examples=60, deadline=None)
@given(swarms())
def test_the_runner_up_is_the_best_chain_that_does_without_one_of_the_peers(swarm):
    layers, candidates, measured = swarm
    chains = list(every_chain(candidates, layers))
    if not chains:
        return
    best = plan(candidates, layers)
    used = {stage.peer_id for stage in best.stages}
    others = [chain for chain in chains if used - {stage.peer_id for stage in chain}]
    second = runner_up(best, candidates, layers)
    if not others:
        assert second is None
    else:
        assert list(second.stages) in others
        assert second.loop_ms == pytest.approx(
            min(loop_ms(chain, candidates, measured) for chain in others)
        )


@settings(max_examples=60, deadline=None)
@given(swarms(), st.randoms())
def test_any_chain_is_predicted_as_it_is_now(swarm, rng):
    layers, candidates, measured = swarm
    chains = list(every_chain(candidates, layers))
    if chains:
        chain = rng.choice(chains)
        found = predict(chain, candidates)
        assert found.stages == tuple(chain)
        assert found.loop_ms == pytest.approx(loop_ms(chain, candidates, measured))


def test_a_chain_whose_peer_is_gone_or_serves_less_is_not_predicted():
    chain = [Stage("a", 0, 2), Stage("b", 2, 4)]
    both = [Candidate("a", 0, 2, 10.0), Candidate("b", 2, 4, 10.0)]
    assert predict(chain, both).loop_ms == 20.0
    assert predict(chain, both[:1]) is None
    assert predict(chain, [both[0], Candidate("b", 3, 4, 10.0)]) is None


# Chains of one dtype.


def in_dtypes(candidates, dtypes):
    return [
        replace(each, dtype=dtype) for each, dtype in zip(candidates, cycle(dtypes), strict=False)
    ]


def dtypes_of(chain, candidates):
    by_id = {candidate.peer_id: candidate.dtype for candidate in candidates}
    return frozenset(by_id[stage.peer_id] for stage in chain)


DTYPES = st.lists(st.sampled_from(["float32", "bfloat16", "float16"]), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(swarms(), DTYPES)
def test_no_chain_costs_less_where_a_mixed_one_counts_as_longer(swarm, dtypes):
    layers, candidates, measured = swarm
    candidates = in_dtypes(candidates, dtypes)
    chains = list(every_chain(candidates, layers))
    if not chains:
        return
    found = plan(candidates, layers)
    assert found.dtypes == dtypes_of(found.stages, candidates)
    costs = [
        loop_ms(chain, candidates, measured)
        * (MIXED if len(dtypes_of(chain, candidates)) > 1 else 1)
        for chain in chains
    ]
    assert found.cost_ms == pytest.approx(min(costs))
    second = runner_up(found, candidates, layers)
    assert second is None or second.cost_ms >= found.cost_ms * (1 - 1e-9)


@settings(max_examples=100, deadline=None)
@given(swarms(), DTYPES, st.randoms())
def test_with_equal_speeds_a_chain_of_one_dtype_is_chosen(swarm, dtypes, rng):
    layers, candidates, _ = swarm
    same = [
        replace(each, rtt_ms=10.0, fixed_ms=0.0, layer_ms=5.0, neighbours_ms={})
        for each in in_dtypes(candidates, dtypes)
    ]
    rng.shuffle(same)
    uniform = {}  # by the number of peers
    for chain in every_chain(same, layers):
        if len(dtypes_of(chain, same)) == 1:
            uniform.setdefault(len(chain), chain)
    if uniform:
        found = plan(same, layers)
        shorter = loop_ms(uniform[min(uniform)], same, {}) > MIXED * found.loop_ms
        assert len(found.dtypes) == 1 or shorter


def test_a_mixed_chain_is_taken_if_it_is_clearly_faster_or_nothing_else_serves_all_layers():
    first = Candidate("first", 0, 4, 10.0, layer_ms=5.0, dtype="bfloat16")
    same = Candidate("same", 4, 8, 10.0, layer_ms=10.0, dtype="bfloat16")
    other = Candidate("other", 4, 8, 10.0, layer_ms=6.0, dtype="float32")
    assert plan([first, other, same], 8) == Route(
        (Stage("first", 0, 4), Stage("same", 4, 8)), 80.0, frozenset({"bfloat16"})
    ), "80 ms against 64"
    faster = replace(other, layer_ms=5.0)
    assert plan([first, faster, same], 8).stages[1].peer_id == "other", "80 ms against 60"
    assert plan([first, other], 8).dtypes == {"float32", "bfloat16"}
    third = Candidate("third", 0, 8, 10.0, layer_ms=9.0, dtype="float16")
    assert plan([first, other, third], 8).stages == (Stage("third", 0, 8),), "82 ms against 64"
