"""The planned chain is the best of all chains, and what is missing is said layer by layer."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.routing.chain import MissingLayers, Stage, gaps, plan


@dataclass(frozen=True)
class Peer:
    peer_id: str
    first_layer: int
    last_layer: int


def peers_of(*spans):
    """Peers a, b, c ... that serve these spans."""
    return [Peer(chr(ord("a") + i), first, last) for i, (first, last) in enumerate(spans)]


def every_chain(peers, layers, layer=0):
    """All chains there are, with every layer at which one peer may hand over to another."""
    if layer == layers:
        yield []
    for peer in peers:
        if peer.first_layer <= layer < peer.last_layer:
            for end in range(layer + 1, min(peer.last_layer, layers) + 1):
                for rest in every_chain(peers, layers, end):
                    yield [Stage(peer.peer_id, layer, end), *rest]


@st.composite
def swarms(draw):
    layers = draw(st.integers(1, 5))
    spans = st.tuples(st.integers(0, layers - 1), st.integers(1, layers)).filter(lambda span: span[0] < span[1])
    peers = peers_of(*draw(st.lists(spans, max_size=5)))
    # Whole milliseconds, so that sums compare exactly.
    rtt_ms = {peer.peer_id: float(draw(st.integers(0, 9))) for peer in peers}
    return layers, peers, rtt_ms


@settings(max_examples=300, deadline=None)
@given(swarms())
def test_no_chain_has_fewer_peers_or_as_many_with_a_smaller_sum_of_round_trips(swarm):
    layers, peers, rtt_ms = swarm

    def cost(chain):
        return len(chain), sum(rtt_ms[stage.peer_id] for stage in chain)

    chains = list(every_chain(peers, layers))
    if chains:
        chain = plan(peers, layers, rtt_ms)
        assert chain in chains
        assert cost(chain) == min(map(cost, chains))
    else:
        with pytest.raises(MissingLayers):
            plan(peers, layers, rtt_ms)


@given(swarms())
def test_gaps_are_the_longest_spans_that_nobody_serves(swarm):
    layers, peers, _ = swarm
    served = {layer for peer in peers for layer in range(peer.first_layer, peer.last_layer)}
    found = gaps(peers, layers)
    assert [layer for first, last in found for layer in range(first, last)] == sorted(set(range(layers)) - served)
    assert all(last in served for (_, last), _ in pairwise(found))


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [(0, 8)]),
        ([(0, 8)], []),
        ([(0, 4), (4, 8)], []),
        ([(2, 4)], [(0, 2), (4, 8)]),
        ([(5, 6), (0, 2), (1, 3)], [(3, 5), (6, 8)]),
        ([(0, 6), (1, 3)], [(6, 8)]),
        ([(6, 12)], [(0, 6)]),  # a peer that claims more layers than there are
        ([(9, 12)], [(0, 8)]),
    ],
)
def test_gaps(spans, expected):
    assert gaps(peers_of(*spans), 8) == expected


def test_a_chain_enters_a_span_in_the_middle():
    assert plan(peers_of((0, 5), (2, 8)), 8, {"a": 1, "b": 1}) == [Stage("a", 0, 5), Stage("b", 5, 8)]


def test_a_claim_beyond_the_last_layer_is_cut():
    assert plan(peers_of((0, 3), (2, 99)), 8, {"a": 1, "b": 1}) == [Stage("a", 0, 3), Stage("b", 3, 8)]


def test_one_far_peer_beats_two_near_ones():
    assert plan(peers_of((0, 4), (4, 8), (0, 8)), 8, {"a": 1, "b": 1, "c": 500}) == [Stage("c", 0, 8)]


def test_of_equals_the_nearer_is_taken():
    chain = plan(peers_of((0, 4), (0, 4), (4, 8), (4, 8)), 8, {"a": 9, "b": 5, "c": 5, "d": 9})
    assert chain == [Stage("b", 0, 4), Stage("c", 4, 8)]


def test_a_peer_that_did_not_answer_is_not_used():
    peers = peers_of((0, 8), (0, 4), (4, 8))
    assert plan(peers, 8, {"b": 1, "c": 1}) == [Stage("b", 0, 4), Stage("c", 4, 8)]
    with pytest.raises(MissingLayers) as caught:
        plan(peers, 8, {"b": 1}, "m")
    assert (caught.value.gaps, caught.value.peers) == (((4, 8),), 1)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            MissingLayers("m", [(0, 8)], 8, 0),
            "no peer serves m; start one with `swarm-peer join m --layers 0:8`",
        ),
        (
            MissingLayers("m", [(4, 8)], 8, 1),
            "nobody serves layers 4:8 of m (it has 8; 1 peer answers); "
            "start a peer with `swarm-peer join m --layers 4:8`",
        ),
        (
            MissingLayers("m", [(0, 2), (5, 6)], 8, 3),
            "nobody serves layers 0:2, 5:6 of m (it has 8; 3 peers answer); "
            "start a peer with `swarm-peer join m --layers 0:2`",
        ),
    ],
)
def test_missing_layers_are_named_with_the_command_that_helps(error, sentence):
    assert str(error) == sentence
