"""One rule for rollback, cancellation, retransmission and branches: a tree of tokens, and where
their rows lie."""

import copy

import pytest

from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import BEGINNING, MAX_TAIL, OutOfOrder, Placement, TokenTree, replayed


def line(count: int, trunk: int = 0) -> TokenTree:
    """A stream of ``count`` tokens, one after the other, of which the first ``trunk`` lead to the
    root."""
    stream = TokenTree()
    if trunk:
        assert stream.admit(0, 0, 1, trunk)
    assert stream.admit(0, trunk, trunk + 1, count - trunk)
    return stream


def fork() -> TokenTree:
    """``0 - 1 - 2 - 3`` and, beside, ``1 - 4 - 5``; the rows are those numbers less one."""
    stream = TokenTree()
    assert stream.admit(0, 0, 1, 5, (1, 1, 1, 3, 1))
    return stream


def refused(stream: TokenTree, *frame: object, replay: bool = False) -> str:
    """What is said of a frame that does not continue the stream, which stays as it was."""
    before = copy.deepcopy(stream)
    with pytest.raises(OutOfOrder) as caught:
        stream.admit(*frame, replay=replay)  # type: ignore[arg-type]
    assert stream == before
    assert (caught.value.epoch, caught.value.first) == (frame[0], frame[2])
    assert str(caught.value).startswith(
        f"a frame of epoch {frame[0]} whose first token is number {frame[2]}: "
    )
    return caught.value.problem


def test_frames_of_one_epoch_follow_each_other():
    stream = TokenTree()
    assert stream.admit(0, 0, 1, 5) == Placement(0, (), (0, 1, 2, 3, 4), 0, None)
    assert stream.admit(0, 0, 6, 2) == Placement(5, (), (5, 6), 0, None)
    assert (stream.length, stream.last, stream.trunk) == (7, 7, 0)


def test_a_later_root_makes_the_trunk_longer_and_moves_nothing():
    stream = line(5)
    assert stream.admit(0, 4, 6, 2) == Placement(5, (), (5, 6), 4, None)
    assert (stream.length, stream.trunk) == (7, 4)


def test_a_newer_epoch_goes_back_to_its_root():
    stream = line(10)
    assert stream.admit(2, 6, 11, 2, (5, 1)) == Placement(6, (), (6, 7), 6, None)
    assert (stream.epoch, stream.length) == (2, 8)


def test_a_newer_epoch_may_go_back_to_the_old_root():
    assert line(10, trunk=4).admit(1, 4, 11, 2, (7, 1)) == Placement(4, (), (4, 5), 4, None)
    assert line(3).admit(1, 0, 4, 1, (4,)) == Placement(0, (), (0,), 0, None)


def test_a_newer_epoch_may_skip_epochs_and_serials():
    """A peer never hears of frames that have died before it."""
    assert line(10).admit(7, 10, 30, 2, (20, 1)) == Placement(10, (), (10, 11), 10, None)
    assert refused(line(10), 7, 10, 30, 2) == "the parent of number 30, 29, is not held"


def test_branches_see_their_own_ancestors():
    stream = TokenTree()
    placed = stream.admit(0, 0, 1, 5, (1, 1, 1, 3, 1))
    assert placed == Placement(
        0, (), (0, 1, 2, 1, 2), 0, (0b00001, 0b00011, 0b00111, 0b01001, 0b11001)
    )
    assert stream.admit(0, 0, 6, 2, (3, 2)) == Placement(5, (), (3, 3), 0, (0b100111, 0b1011001))


def test_one_frame_may_hold_a_line_though_the_rows_before_it_do_not():
    assert fork().admit(0, 0, 6, 1) == Placement(5, (), (3,), 0, (0b111001,))
    assert fork().admit(0, 5, 6, 1) == Placement(3, (3, 4), (3,), 3, None)


def test_the_losing_branch_is_pruned_and_the_rows_behind_it_move():
    stream = fork()
    assert stream.admit(0, 4, 6, 1) == Placement(3, (3, 4), (3,), 2, None)
    assert (stream.length, stream.trunk) == (4, 2)


def test_rows_that_stay_where_they_are_are_not_kept_by_name():
    assert fork().admit(0, 2, 6, 1, (3,)) == Placement(3, (), (3,), 2, None)
    # 1 - 2 with the children 3 and 4, and 3 with the children 5 and 6: only what lies behind 4
    # moves.
    stream = TokenTree()
    assert stream.admit(0, 0, 1, 6, (1, 1, 1, 2, 2, 3))
    assert stream.admit(0, 3, 7, 2, (2, 2)) == Placement(5, (4, 5), (4, 4), 3, (0b101, 0b1010))


def test_a_newer_epoch_may_go_back_to_a_branch():
    stream = fork()
    assert stream.admit(1, 5, 6, 1) == Placement(3, (3, 4), (3,), 3, None)
    assert (stream.length, stream.trunk) == (4, 3)


def test_an_older_epoch_is_stale_and_changes_nothing():
    stream = line(3)
    assert stream.admit(3, 3, 4, 2)
    before = copy.deepcopy(stream)
    for first in (1, 6, 99):
        assert stream.admit(2, 3, first, 4) is None
    assert stream == before


def test_a_cancelled_epoch_is_stale_before_the_newer_one_comes():
    stream = line(10)
    stream.cancel(3)
    assert stream.stale(2)
    assert stream.admit(2, 10, 11, 1) is None
    assert not stream.stale(3)
    assert stream.admit(3, 10, 11, 1)


def test_a_late_cancel_takes_nothing_back_and_allows_nothing_again():
    stream = line(10)
    assert stream.admit(5, 10, 11, 1)
    for epoch in (4, 7, 2):
        stream.cancel(epoch)
    assert stream.stale(6)
    assert not stream.stale(7)


@pytest.mark.parametrize(("epoch", "first"), [(0, 5), (0, 3), (0, 1), (1, 3), (1, 1)])
def test_a_gap_or_a_repetition_is_a_fault(epoch, first):
    assert refused(line(3), epoch, 0, first, 1) == "the last one in epoch 0 was 3"


@pytest.mark.parametrize(("stream", "root"), [(fork(), 6), (line(5, trunk=3), 2)])
def test_a_root_that_is_not_held_is_a_fault(stream, root):
    assert not stream.holds(root)
    for epoch in (0, 1):
        assert refused(stream, epoch, root, 6, 1) == f"its root, number {root}, is not held"


def test_only_a_newer_epoch_goes_back_to_the_beginning():
    stream = line(5, trunk=3)
    assert refused(stream, 0, BEGINNING, 6, 1) == "its root, number 0, is not held"
    assert stream.admit(1, BEGINNING, 6, 2, (6, 1)) == Placement(0, (), (0, 1), 0, None)
    assert (stream.length, stream.trunk) == (2, 0)


def test_a_cut_begins_an_epoch_without_a_token():
    stream = fork()
    assert all(map(stream.holds, range(6)))
    assert stream.cut(2, 5) == Placement(3, (3, 4), (), 3, None)
    assert (stream.epoch, stream.root, stream.last, stream.length, stream.trunk) == (2, 5, 5, 3, 3)
    assert [serial for serial in range(7) if stream.holds(serial)] == [BEGINNING, 5]
    assert stream.stale(1)


def test_a_cut_may_go_back_to_the_old_root_or_the_beginning():
    assert line(5, trunk=3).cut(1, 3) == Placement(3, (), (), 3, None)
    assert line(5, trunk=3).cut(1, BEGINNING) == Placement(0, (), (), 0, None)


@pytest.mark.parametrize(("epoch", "root"), [(0, 3), (1, 3), (2, 2), (2, 9)])
def test_a_cut_that_is_not_newer_or_has_no_root_changes_nothing(epoch, root):
    stream = line(5, trunk=3)
    stream.cancel(2)
    before = copy.deepcopy(stream)
    with pytest.raises(OutOfOrder):
        stream.cut(epoch, root)
    assert stream == before


def test_behind_a_cut_serials_may_be_missing_once():
    stream = line(5)
    stream.cut(1, 4)
    assert refused(stream, 1, 4, 5, 1) == "the last one in epoch 1 was 5", "given before"
    assert stream.admit(1, 4, 9, 2, (5, 1)) == Placement(4, (), (4, 5), 4, None)
    assert refused(stream, 1, 4, 12, 1, (2,)) == "the last one in epoch 1 was 10"


def test_what_is_replayed_is_made_stale_by_a_word_of_its_own_only():
    stream = TokenTree()
    stream.cancel(7, replays=False)
    assert (stream.stale(3), stream.stale(3, replay=True)) == (True, False)
    assert stream.admit(3, 0, 1, 4) is None
    assert stream.admit(3, 0, 5, 4, (5, 1, 1, 1), replay=True)
    assert stream.admit(3, 8, 9, 1) is None
    assert stream.admit(2, 0, 9, 4, replay=True) is None, "an older one is stale all the same"
    assert stream.admit(7, 8, 20, 1, (12,)) == Placement(4, (), (4,), 4, None)
    stream = TokenTree()
    stream.cancel(7)
    stream.cancel(2)
    assert (stream.stale(6, replay=True), stream.stale(7, replay=True)) == (True, False)
    assert stream.admit(6, 0, 1, 4, replay=True) is None


@pytest.mark.parametrize(
    ("root", "rows"), [(0, 0), (5, 5), (900, 1), (900, MAX_FRAME_TOKENS), (900, 899), (900, 900)]
)
def test_what_is_replayed_ends_at_its_root(root, rows):
    stream, told = TokenTree(), []
    for first, which, before, parents in replayed(root, rows):
        placed = stream.admit(3, before, first, which.stop - which.start, parents, replay=True)
        assert placed is not None
        assert (placed.start, placed.keep, placed.sees) == (which.start, (), None)
        told += range(rows)[which]
    assert told == list(range(rows))
    assert (stream.length, stream.last) == (rows, root)
    assert stream.admit(3, root, 1000, 1, (1000 - root,)) == Placement(
        rows, (), (rows,), rows, None
    )


def test_what_stands_is_told_with_its_branches_and_gaps():
    stream = fork()
    assert stream.admit(0, 1, 6, 2, (2, 1))  # 4 - 6 - 7
    assert stream.admit(0, 4, 8, 1, (3,))  # 5 - 8; 2 and 3 are gone
    assert list(stream.replay_chunks()) == [
        (3, slice(0, 2), 0, (3, 1)),
        (5, slice(2, 6), 4, (1, 2, 1, 3)),
    ]
    assert list(TokenTree().replay_chunks()) == []
    assert list(fork().replay_chunks()) == [(1, slice(0, 5), 0, (1, 1, 1, 3, 1))]
    gaps = fork()
    gaps.cut(1, 5)
    assert gaps.admit(1, 5, 9, 1, (4,))
    assert gaps.admit(1, 5, 10, 1)
    assert list(gaps.replay_chunks()) == [
        (3, slice(0, 3), 0, (3, 1, 1)),
        (9, slice(3, 5), 5, (4, 1)),
    ]


def test_a_replay_is_told_in_frames_that_may_travel():
    frames = list(replayed(2000, 2 * MAX_FRAME_TOKENS + 1))
    assert [which.stop - which.start for _, which, _, _ in frames] == [
        MAX_FRAME_TOKENS,
        MAX_FRAME_TOKENS,
        1,
    ]


def test_a_parent_that_is_not_held_is_a_fault():
    assert refused(fork(), 0, 0, 6, 2, (1, 9)) == "the parent of number 7, -2, is not held"
    # pruned by this very frame
    assert refused(fork(), 0, 4, 6, 1, (3,)) == "the parent of number 6, 3, is not held"
    # before the root
    assert refused(fork(), 0, 2, 6, 1, (5,)) == "the parent of number 6, 1, is not held"
    # forgotten with its epoch
    assert refused(fork(), 1, 2, 6, 1) == "the parent of number 6, 5, is not held"


def test_what_lies_behind_the_root_is_bounded():
    stream = line(MAX_TAIL)
    assert (
        refused(stream, 0, 0, MAX_TAIL + 1, 1) == f"more than {MAX_TAIL} tokens lie behind its root"
    )
    assert stream.admit(0, 1, MAX_TAIL + 1, 1)
    assert "lie behind its root" in refused(stream, 0, 1, MAX_TAIL + 2, 1)
    assert stream.admit(1, MAX_TAIL, MAX_TAIL + 2, MAX_TAIL, (2, *(1,) * (MAX_TAIL - 1)))


@pytest.mark.threat("out-of-order")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("first", [5, 300])
def test_a_frame_behind_a_gap_is_placed_only_where_gaps_are_not_looked_for(
    first: int, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(
            TokenTree, "_resumed", property(lambda self: True, lambda self, value: None)
        )
    stream = line(3)
    if defended:
        assert "the last one in epoch 0 was 3" in refused(stream, 0, 0, first, 2)
    else:
        stream.admit(0, 0, first, 2, (first - 3, 1))
        assert stream.last == first + 1
    assert (stream.length == 3) is defended
