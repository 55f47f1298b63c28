"""A peer stands still if nothing changes for long, and it was sent more than it passed on."""

from hypothesis import given
from hypothesis import strategies as st

from swarm.chain.in_flight import PROMPT_TIMEOUT_S
from swarm.chain.standstill import (
    BATCH_S,
    PROGRESS,
    STANDSTILL_S,
    UNDECIDED,
    Standstill,
    Verdict,
    first_behind,
)
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


def busy(batches: int, last: int = 3) -> dict[str, Progress]:
    """The first peer has frames of the session in its queue."""
    ours = Progress(session=b"0" * 16, epoch=0, last=last, passed=0, queued=True, batches=batches)
    return progress(0, 0, 0) | {"a": ours}


def test_a_busy_peer_is_given_time_as_long_as_it_ends_batch_after_batch() -> None:
    standstill, now = Standstill(CHAIN, 9, (), busy(0), 0.0), 0.0
    for batches in range(1, 7):
        now += BATCH_S - 1.0
        if now >= PROMPT_TIMEOUT_S:
            break
        assert standstill.look(busy(batches), now) == UNDECIDED
    assert standstill.look(busy(6), PROMPT_TIMEOUT_S) == Verdict(over=True, peer_id="a")


def test_a_busy_peer_that_ends_no_batch_stands_still() -> None:
    standstill = Standstill(CHAIN, 9, (), busy(4), 0.0)
    assert standstill.look(busy(4), BATCH_S - 0.1) == UNDECIDED
    assert standstill.look(busy(4), BATCH_S) == Verdict(over=True, peer_id="a")


def test_batches_of_other_sessions_are_no_progress_and_tokens_of_this_one_are() -> None:
    standstill = Standstill(CHAIN, 9, (), busy(4), 0.0)
    assert standstill.look(busy(5), 1.0) == UNDECIDED
    assert standstill.look(busy(5, last=4), 2.0) == PROGRESS
