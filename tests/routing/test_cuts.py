"""Where a model may be cut, and which spans a peer of some capacity could serve of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.routing.cuts import Cuts

FEW = Cuts(8, (3, 4, 6))


def test_a_span_begins_and_ends_where_the_model_may_be_cut() -> None:
    assert FEW.borders == (0, 3, 4, 6, 8)
    assert FEW.allow(0, 3)
    assert FEW.allow(4, 8)
    assert FEW.allow(0, 8)
    assert not FEW.allow(0, 2)
    assert not FEW.allow(5, 8)
    assert not FEW.allow(4, 4)
    assert not FEW.everywhere
    assert FEW.smallest == (3, 4)
    assert str(FEW) == "only before the layers 3, 4, 6"
    assert str(Cuts(8, ())).startswith("only whole")


def test_the_longest_spans_that_fit() -> None:
    assert FEW.spans(1) == [(3, 4)]
    assert FEW.spans(3) == [(0, 3), (3, 6), (6, 8)]
    assert FEW.spans(4) == [(0, 4), (3, 6), (4, 8)]
    assert FEW.spans(100) == [(0, 8)]
    assert Cuts(8, ()).spans(7) == []
    assert Cuts(8, ()).spans(8) == [(0, 8)]


@given(st.integers(1, 20), st.integers(1, 25))
def test_most_models_may_be_cut_anywhere(layers: int, capacity: int) -> None:
    cuts = Cuts.anywhere(layers)
    assert cuts.everywhere
    assert cuts.smallest == (0, 1)
    size = min(layers, capacity)
    assert cuts.spans(capacity) == [(first, first + size) for first in range(layers - size + 1)]


@pytest.mark.parametrize("capacity", range(3, 9))
@given(places=st.sets(st.integers(1, 23)))
def test_a_span_is_allowed_and_could_not_be_longer(capacity: int, places: set[int]) -> None:
    cuts = Cuts(24, tuple(sorted(places)))
    spans = cuts.spans(capacity)
    assert all(cuts.allow(*span) and span[1] - span[0] <= capacity for span in spans)
    fits = [
        (first, last)
        for first in cuts.borders
        for last in cuts.borders
        if first < last <= first + capacity
    ]
    assert all(any(a <= first and last <= b for a, b in spans) for first, last in fits)
