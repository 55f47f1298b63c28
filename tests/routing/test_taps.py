"""Peers that tell no outputs serve layers that no drafter reads."""

import pytest

from swarm.routing.chain import Stage
from swarm.routing.plan import Candidate
from swarm.routing.taps import Tapping

TAPPING = Tapping((2, 7))


def spans(candidates: list[Candidate]) -> list[tuple[int, int]]:
    return [(each.first_layer, each.last_layer) for each in candidates]


@pytest.mark.parametrize(
    ("span", "left"),
    [
        ((0, 2), [(0, 2)]),
        ((0, 3), [(0, 2)]),
        ((0, 10), [(3, 7)]),
        ((2, 5), [(3, 5)]),
        ((2, 3), []),
        ((7, 9), [(8, 9)]),
        ((3, 7), [(3, 7)]),
    ],
)
def test_a_peer_that_does_not_tell_keeps_a_run_of_layers_that_are_not_read(
    span: tuple[int, int], left: list[tuple[int, int]]
) -> None:
    silent = Candidate("a", *span, 10.0, taps=False)
    doubted = Candidate("a", *span, 10.0)
    assert spans(TAPPING.among([silent])) == left
    assert spans(Tapping((2, 7), frozenset("a")).among([doubted])) == left
    assert TAPPING.among([doubted]) == [doubted]


def test_a_chain_tells_if_the_peers_of_the_layers_that_are_read_do() -> None:
    candidates = [Candidate("a", 0, 5, 10.0, taps=False), Candidate("b", 2, 9, 10.0)]
    assert TAPPING.told_by([Stage("a", 0, 2), Stage("b", 2, 9)], candidates)
    assert not TAPPING.told_by([Stage("a", 0, 3), Stage("b", 3, 9)], candidates)
