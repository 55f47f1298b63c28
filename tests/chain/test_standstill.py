"""A peer stands still if nothing changes for long, and it was sent more than it passed on."""

from hypothesis import given
from hypothesis import strategies as st

from swarm.chain.in_flight import PROMPT_TIMEOUT_S
from swarm.chain.standstill import STANDSTILL_S, Standstill, first_behind
from swarm.wire.messages import Progress

CHAIN = ["a", "b", "c"]


def progress(*passed: int) -> dict[str, Progress]:
    return {
        peer_id: Progress(session=b"0" * 16, epoch=0, last=each, passed=each)
        for peer_id, each in zip(CHAIN, passed, strict=True)
    }


def test_the_first_that_was_sent_more_than_it_passed_on_is_behind() -> None:
    assert first_behind(CHAIN, 9, progress(9, 9, 9)) is None
    assert first_behind(CHAIN, 9, progress(5, 5, 5)) == "a"
    assert first_behind(CHAIN, 9, progress(9, 5, 5)) == "b"
    assert first_behind(CHAIN, 9, progress(9, 9, 5)) == "c"
    assert first_behind(CHAIN, 9, progress(9, 5, 3)) == "b"


@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.floats(0.1, 90.0)),
        max_size=6,
    ),
    st.booleans(),
    st.sets(st.sampled_from(CHAIN)),
)
def test_only_what_stands_still_for_as_long_as_it_may_is_named(
    first: list[int],
    looks: list[tuple[list[int], float]],
    unchanged: bool,
    replaying: set[str],
) -> None:
    now = 50.0
    standstill = Standstill(CHAIN, 9, replaying, progress(*first), now)
    for passed, seconds in looks:
        now += seconds
        seen = progress(*(first if unchanged else passed))
        verdict = standstill.look(seen, now)
        behind = first_behind(CHAIN, 9, seen)
        if seen != progress(*first) or behind is None:
            assert (verdict.over, verdict.peer_id) == (True, None), "the chain makes progress"
            return
        limit_s = PROMPT_TIMEOUT_S if behind in replaying else STANDSTILL_S
        assert verdict.peer_id == (behind if now - 50.0 >= limit_s else None)
        assert verdict.over == (verdict.peer_id is not None)
        if verdict.over:
            return
