"""Which chain is taken, which peers replace others, and which one stands by."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.audit.ledger import Ledger
from swarm.chain.choice import STICKY, best_two, choose, replacement, second
from swarm.errors import MissingLayers
from swarm.routing.chain import Stage, gaps
from swarm.routing.plan import MIXED, Candidate
from swarm.routing.taps import Tapping

LAYERS = 4
FULL, HALF = "float32", "bfloat16"
MS = st.integers(1, 50).map(float)


PARTS = [(0, 2), (2, 4), (1, 3), (0, 4)]


@st.composite
def peers(draw: st.DrawFn, of: list[tuple[int, int]]) -> list[Candidate]:
    spans = st.sampled_from(of)
    return [
        Candidate(f"p{i}", *draw(spans), draw(MS), draw(MS), draw(MS), dtype=dtype)
        for i, dtype in enumerate(draw(st.lists(st.sampled_from([FULL, HALF]), max_size=6)))
    ]


def dtypes(stages: tuple[Stage, ...], candidates: list[Candidate]) -> set[str]:
    by_id = {each.peer_id: each.dtype for each in candidates}
    return {by_id[stage.peer_id] for stage in stages}


@given(peers(PARTS), st.sampled_from([FULL, HALF]))
def test_peers_that_failed_are_replaced_in_their_dtype_if_such_peers_serve_all_layers(
    candidates: list[Candidate], dtype: str
) -> None:
    alike = [each for each in candidates if each.dtype == dtype]
    if gaps(candidates, LAYERS):
        with pytest.raises(MissingLayers):
            replacement(candidates, LAYERS, dtype)
        return
    found = replacement(candidates, LAYERS, dtype)
    assert (dtypes(found.stages, candidates) == {dtype}) or gaps(alike, LAYERS)
    assert not gaps([each for each in candidates if each.peer_id in {*_ids(found.stages)}], LAYERS)


@given(peers([(0, 4), (0, 2)]), st.sampled_from([FULL, HALF]))
def test_one_peer_stands_by_for_all_layers_and_in_the_same_dtype_if_there_is_one(
    candidates: list[Candidate], dtype: str
) -> None:
    whole = {
        each.peer_id: each
        for each in candidates
        if (each.first_layer, each.last_layer) == (0, LAYERS)
    }
    found = second(candidates, LAYERS, dtype)
    if found is None:
        assert not whole
        return
    (stage,) = found.stages
    chosen = whole[stage.peer_id]
    assert (stage.first, stage.last) == (0, LAYERS)
    alike = [each for each in whole.values() if each.dtype == dtype]
    assert chosen.dtype == dtype or not alike
    assert all(_alone_ms(chosen) <= _alone_ms(each) for each in alike or whole.values())


def test_who_stands_by_is_one_peer_though_two_would_be_faster() -> None:
    """A near one is slow and a fast one far away: together they would have the shorter loop."""
    near = Candidate("near", 0, LAYERS, 2.0, layer_ms=30.0, neighbours_ms={"fast": 1.0})
    fast = Candidate("fast", 0, LAYERS, 90.0, layer_ms=1.0)
    found = second([near, fast], LAYERS, FULL)
    assert found is not None
    assert found.stages == (Stage("fast", 0, LAYERS),)


def test_the_last_chain_stays_if_it_is_nearly_as_good_but_not_for_mixing_dtypes() -> None:
    first = Candidate("first", 0, 2, 10.0, layer_ms=20.0, dtype=HALF)
    mixing = Candidate("mixing", 2, 4, 10.0, layer_ms=20.0, dtype=FULL)
    last = choose([first, mixing], LAYERS, None, Ledger())
    assert last.cost_ms == MIXED * last.loop_ms == MIXED * 100.0
    slower = replace(mixing, peer_id="slower", layer_ms=21.0, dtype=HALF)
    assert choose([first, mixing, slower], LAYERS, last, Ledger()).stages[1].peer_id == "slower"
    same = replace(last, dtypes=frozenset({HALF}))
    alike = replace(mixing, dtype=HALF)
    faster = replace(alike, peer_id="faster", layer_ms=15.0)
    again = choose([first, alike, faster], LAYERS, same, Ledger())
    assert again.stages == same.stages
    assert again.loop_ms == 100.0 < STICKY * 90.0


def test_a_chain_that_tells_what_is_read_is_preferred_unless_it_is_far_longer() -> None:
    old = Candidate("old", 0, LAYERS, 10.0, layer_ms=10.0, taps=False)
    new = replace(old, peer_id="new", layer_ms=15.0, taps=True)
    tapping = Tapping((0, 3))

    def chosen(*candidates: Candidate, tapping: Tapping | None = tapping) -> list[str]:
        return _ids(choose(candidates, LAYERS, None, Ledger(), tapping).stages)

    assert chosen(old, new, tapping=None) == ["old"]
    assert chosen(old, new) == ["new"]
    assert chosen(old, replace(new, layer_ms=30.0)) == ["old"]
    assert chosen(old) == ["old"]
    assert chosen(old, new, tapping=Tapping((0, 3), frozenset({"new"}))) == ["old"]
    # the old one may go on behind what is read
    assert chosen(old, new, tapping=Tapping((1,))) == ["new", "old"]


def test_the_last_chain_does_not_stay_if_it_does_not_tell_what_is_read() -> None:
    old = Candidate("old", 0, LAYERS, 10.0, layer_ms=10.0, taps=False)
    new = replace(old, peer_id="new", taps=True)
    last = choose([old], LAYERS, None, Ledger())
    assert _ids(choose([old, new], LAYERS, last, Ledger()).stages) == ["old"]
    assert _ids(choose([old, new], LAYERS, last, Ledger(), Tapping((1,))).stages) == ["new"]


def test_a_choice_says_in_which_dtype_each_peer_computes() -> None:
    candidates = [
        Candidate("a", 0, 2, 10.0, dtype=HALF),
        Candidate("b", 2, 4, 10.0, dtype=FULL),
        Candidate("c", 2, 4, 90.0, dtype=HALF),
    ]
    best, other = best_two(candidates, LAYERS)
    assert [peer["dtype"] for peer in best.as_dict()["peers"]] == [HALF, FULL]
    assert [peer["dtype"] for peer in other.as_dict()["peers"]] == [HALF, HALF]


def _ids(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.peer_id for stage in stages]


def _alone_ms(candidate: Candidate) -> float:
    return candidate.rtt_ms + candidate.fixed_ms + LAYERS * candidate.layer_ms
