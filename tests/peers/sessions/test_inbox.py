"""What waits for one session: bounded, all of one epoch, and joined where it may be."""

import pytest
import torch

from helpers.loopback import hidden_frame, tokens_frame
from peers.sessions.inbox import MAX_JOINED_TOKENS, MAX_LOST_TOKENS, Inbox, InboxFull, follows, join
from swarm.wire.messages import Frame
from swarm.wire.tensors import WireTensor
from swarm.wire.token_tree import TokenTree

ROOM = 1000


def inbox(*frames: Frame) -> Inbox:
    box = Inbox(ROOM)
    for frame in frames:
        box.put(frame)
    return box


def test_frames_that_wait_together_are_taken_as_one() -> None:
    box = inbox(
        tokens_frame(1, (3, 4), root=0),
        tokens_frame(3, (5,), root=1),
        tokens_frame(4, (6, 7), root=2),
    )
    assert (len(box), box.tokens, box.next_tokens(ROOM)) == (3, 5, 5)
    assert box.take(ROOM) == tokens_frame(1, (3, 4, 5, 6, 7))
    assert (len(box), box.tokens, box.next_tokens(ROOM)) == (0, 0, 0)


def test_hidden_states_are_joined_bit_by_bit() -> None:
    hidden = torch.randn(3, 4)
    box = inbox(hidden_frame(1, hidden[:1]), hidden_frame(2, hidden[1:]))
    taken = box.take(ROOM)
    assert taken.hidden is not None
    assert torch.equal(taken.hidden.unpack(), hidden)


def test_parents_are_joined_and_a_line_stays_a_line() -> None:
    line, fork = tokens_frame(1, (3, 4)), tokens_frame(3, (5, 6), parents=(1, 2))
    assert join([line, tokens_frame(3, (5,))]).parents is None
    assert join([line, fork]).parents == (1, 1, 1, 2)
    assert join([fork, tokens_frame(5, (7,))]).parents == (1, 2, 1)


def test_a_joined_frame_places_its_tokens_as_its_parts_would() -> None:
    frames = [
        tokens_frame(1, (3, 4, 5)),
        tokens_frame(4, (6, 7), root=2, parents=(2, 2)),
        tokens_frame(6, (8,), root=2, parents=(2,)),
    ]
    apart, together = TokenTree(), TokenTree()
    for frame in frames:
        placed = apart.admit(frame.epoch, frame.root, frame.first, frame.count, frame.parents)
    joined = join(frames)
    at_once = together.admit(joined.epoch, joined.root, joined.first, joined.count, joined.parents)
    assert placed is not None
    assert at_once is not None
    assert at_once.positions[-1:] == placed.positions
    # and then their roots are the same
    assert together.admit(0, 2, 7, 1) == apart.admit(0, 2, 7, 1)


def test_each_stage_took_as_long_as_with_the_slowest_of_them() -> None:
    first = tokens_frame(1, (3,), compute_ms=(1.0, 5.0), queue_ms=(0.0, 2.0))
    second = tokens_frame(2, (4,), compute_ms=(3.0, 4.0), queue_ms=(1.0, 0.0))
    joined = join([first, second])
    assert (joined.compute_ms, joined.queue_ms) == ((3.0, 5.0), (1.0, 2.0))


FIRST = tokens_frame(1, (3, 4))
HIDDEN = hidden_frame(1, torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("before", "frame"),
    [
        (FIRST, tokens_frame(4, (5,))),  # a gap, which is a fault when it is admitted
        (FIRST, tokens_frame(3, (5, 6), tail=1)),  # a prompt
        (tokens_frame(1, (3, 4), tail=0), tokens_frame(3, (5,))),
        (tokens_frame(1, (3, 4), tail=0, replay=0), tokens_frame(3, (5,))),  # what is replayed
        (tokens_frame(1, (3, 4), tail=0, replay=0), tokens_frame(3, (5,), tail=0, replay=0)),
        (FIRST, tokens_frame(3, (5,), compute_ms=(1.0,))),  # it has come another way
        (FIRST, tokens_frame(3, (5,), queue_ms=(1.0,))),
        (HIDDEN, hidden_frame(3, torch.zeros(1, 4, dtype=torch.bfloat16))),
    ],
)
def test_what_does_not_belong_together_is_not_joined(before: Frame, frame: Frame) -> None:
    assert not follows(before, frame)
    box = inbox(before, frame)
    assert [box.take(ROOM), box.take(ROOM)] == [before, frame]


@pytest.mark.parametrize(("room", "most"), [(ROOM, MAX_JOINED_TOKENS), (5, 5), (0, 1), (-3, 1)])
def test_what_is_joined_is_bounded_by_a_limit_and_the_room_there_is(room: int, most: int) -> None:
    box = inbox(*(tokens_frame(first, (3,)) for first in range(1, 101)))
    assert box.next_tokens(room) == most
    assert box.take(room).count == most


def test_one_frame_is_taken_whatever_its_length() -> None:
    box = inbox(tokens_frame(1, (3,) * 200), tokens_frame(201, (3,)))
    assert box.next_tokens(10) == 200
    assert box.take(10).count == 200
    assert box.take(10).count == 1


def test_a_newer_epoch_drops_what_waits_of_older_ones() -> None:
    box = inbox(tokens_frame(1, (3, 4)), tokens_frame(3, (5,)))
    box.put(tokens_frame(4, (6,), epoch=1))
    assert (len(box), box.tokens) == (1, 1)
    assert box.take(ROOM).epoch == 1


def test_a_cancel_drops_what_waits_of_older_epochs_only() -> None:
    box = inbox(tokens_frame(1, (3, 4), epoch=2))
    box.cancel(2)
    assert box.tokens == 2
    box.cancel(3)
    assert (len(box), box.tokens, box.next_tokens(ROOM)) == (0, 0, 0)


def test_what_is_replayed_comes_first_and_outlives_newer_epochs() -> None:
    replays = [
        tokens_frame(1, (3, 4), tail=0, replay=0, epoch=1),
        tokens_frame(3, (5,), tail=0, replay=0, epoch=1),
    ]
    late, frame = tokens_frame(9, (6,), epoch=1), tokens_frame(10, (7,), epoch=2)
    box = inbox(replays[0], late, replays[1], frame)
    box.cancel(3, replays=False)
    assert (len(box), box.replays, box.tokens) == (2, 2, 3)
    box.put(tokens_frame(11, (8,), epoch=3))
    assert (box.next_tokens(ROOM), box.next_tokens(0)) == (2, 2)
    assert [box.take(ROOM) for _ in range(3)] == [*replays, tokens_frame(11, (8,), epoch=3)]
    assert (len(box), box.replays, box.tokens) == (0, 0, 0)


def test_what_is_replayed_goes_when_its_epoch_is_cancelled() -> None:
    replays = [tokens_frame(1, (3, 4), tail=0, replay=0, epoch=epoch) for epoch in (1, 2)]
    box = inbox(*replays, tokens_frame(9, (6,), epoch=2))
    box.cancel(2)
    assert (box.replays, box.tokens) == (1, 3)
    box.cancel(3)
    assert (len(box), box.tokens) == (0, 0)


def test_the_epochs_of_what_is_replayed_never_fall() -> None:
    newer, older = (
        tokens_frame(1, (3,), tail=0, replay=0, epoch=2),
        tokens_frame(2, (4,), tail=0, replay=0, epoch=1),
    )
    box = inbox(tokens_frame(1, (9,), epoch=1), newer, older)
    assert (box.replays, box.tokens) == (1, 1)
    assert box.take(ROOM) == newer
    assert len(box) == 0, "what waited of an older epoch than a replay is stale"


def test_what_is_replayed_counts_as_all_that_waits() -> None:
    box = Inbox(10)
    for first in (1, 134):
        box.put(tokens_frame(first, (3,) * 133, tail=0, replay=0))
    box.cancel(9, replays=False)
    with pytest.raises(InboxFull):
        box.put(tokens_frame(267, (3,), epoch=9))


def test_what_may_wait_grows_with_what_is_reserved_and_is_bounded() -> None:
    box = Inbox(10)
    for first in range(1, 1 + 10 + MAX_LOST_TOKENS, 2):
        box.put(tokens_frame(first, (3, 4)))
    with pytest.raises(InboxFull, match="266 tokens wait already, 266 may"):
        box.put(tokens_frame(267, (3,)))
    assert box.tokens == box.limit == 266
    box.put(tokens_frame(267, (3,), epoch=1))  # what it makes stale does not count
    assert box.tokens == 1


def test_joined_tensors_are_tensors() -> None:
    parts = [hidden_frame(1, torch.ones(2, 3)), hidden_frame(3, torch.zeros(1, 3))]
    hidden = join(parts).hidden
    assert hidden is not None
    assert WireTensor.model_validate(hidden.model_dump()) == hidden
