"""What is missing is said layer by layer."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import MissingLayers
from swarm.routing.chain import gaps


@dataclass(frozen=True)
class Peer:
    peer_id: str
    first_layer: int
    last_layer: int


def peers_of(*spans):
    """Peers a, b, c ... that serve these spans."""
    return [Peer(chr(ord("a") + i), first, last) for i, (first, last) in enumerate(spans)]


@st.composite
def swarms(draw):
    layers = draw(st.integers(1, 5))
    spans = st.tuples(st.integers(0, layers - 1), st.integers(1, layers)).filter(
        lambda span: span[0] < span[1]
    )
    return layers, peers_of(*draw(st.lists(spans, max_size=5)))


@given(swarms())
def test_gaps_are_the_longest_spans_that_no_peer_serves(swarm):
    layers, peers = swarm
    served = {layer for peer in peers for layer in range(peer.first_layer, peer.last_layer)}
    found = gaps(peers, layers)
    assert [layer for first, last in found for layer in range(first, last)] == sorted(
        set(range(layers)) - served
    )
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


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            MissingLayers("m", ((0, 8),), 8, 0),
            "no peer serves m; start one with `swarm-peer join MODEL --layers 0:8`",
        ),
        (
            MissingLayers("m", ((4, 8),), 8, 1),
            "no peer serves layers 4:8 of m (it has 8; 1 peer answers); "
            "start a peer with `swarm-peer join MODEL --layers 4:8`",
        ),
        (
            MissingLayers("m", ((0, 2), (5, 6)), 8, 3),
            "no peer serves layers 0:2, 5:6 of m (it has 8; 3 peers answer); "
            "start a peer with `swarm-peer join MODEL --layers 0:2`",
        ),
    ],
)
def test_missing_layers_are_named_with_the_command_that_helps(error, sentence):
    assert str(error) == sentence
