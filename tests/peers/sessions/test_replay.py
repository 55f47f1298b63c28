"""The frames of a replay hold what was sent on, under the serials and parents that it had."""

import torch

from helpers.loopback import session_id
from peers.compute.history import History
from peers.sessions.replay import frames_as_held, replay_frames
from swarm.wire.messages import Frame
from swarm.wire.token_tree import Placement, ReplayChunk, TokenTree

WIDTH = 3


def rows(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, WIDTH).contiguous()


def told(frame: Frame) -> list[float]:
    assert frame.hidden is not None
    return frame.hidden.unpack()[:, 0].tolist()


class Held:
    """A tree of tokens, and a history whose rows have their serials as values."""

    def __init__(self) -> None:
        self.tree = TokenTree()
        self.history = History(limit=64)

    def take(
        self, epoch: int, root: int, first: int, count: int, parents: tuple[int, ...] | None = None
    ) -> None:
        placement = self.tree.admit(epoch, root, first, count, parents)
        assert isinstance(placement, Placement)
        self.history.place(placement)
        self.history.add(rows(*range(first, first + count)))


def test_every_chunk_is_a_frame_with_its_rows() -> None:
    chunks = [
        ReplayChunk(first=1, rows=slice(0, 2), root=0, parents=None),
        ReplayChunk(first=4, rows=slice(2, 3), root=2, parents=(2,)),
    ]
    made = list(replay_frames(session_id(), 7, chunks, rows(1, 2, 4).__getitem__, replay=2))
    assert [told(frame) for frame in made] == [[1, 2], [4]]
    assert [(each.first, each.root, each.parents) for each in made] == [(1, 0, None), (4, 2, (2,))]
    assert {(each.session, each.epoch, each.tail, each.replay) for each in made} == {
        (session_id(), 7, 0, 2)
    }
    assert {each.tokens for each in made} == {None}


def test_rows_are_read_when_a_frame_is_asked_for() -> None:
    asked: list[slice] = []

    def read(which: slice) -> torch.Tensor:
        asked.append(which)
        return rows(1)

    chunks = [ReplayChunk(1, slice(0, 1), 0, None), ReplayChunk(2, slice(1, 2), 1, None)]
    made = replay_frames(session_id(), 0, chunks, read, replay=0)
    assert asked == []
    next(made)
    assert asked == [slice(0, 1)]


def test_a_session_is_given_as_it_stands() -> None:
    held = Held()
    held.take(0, 0, 1, 3)
    held.take(0, 2, 4, 2, parents=(2, 1))  # 1 2 are the trunk; behind 2 follow 3, and 4 with 5
    made = list(frames_as_held(session_id(), held.tree, held.history))
    assert [told(frame) for frame in made] == [[1, 2], [3, 4, 5]]
    assert [(each.first, each.root, each.parents) for each in made] == [
        (1, 0, None),
        (3, 2, (1, 2, 1)),
    ]
    assert {(each.epoch, each.replay) for each in made} == {(0, 0)}


def test_what_is_forgotten_meanwhile_is_given_all_the_same() -> None:
    held = Held()
    held.take(0, 0, 1, 2)
    held.take(0, 1, 3, 2, parents=(2, 1))  # behind 1: 2, and 3 with 4
    made = frames_as_held(session_id(), held.tree, held.history)
    held.take(1, 4, 5, 1)  # the text went on by 3 and 4: 2 is forgotten, and the rows move
    assert [told(frame) for frame in made] == [[1], [2, 3, 4]]


def test_a_session_that_only_has_a_trunk_is_given_whole() -> None:
    held = Held()
    held.take(0, 0, 1, 3)
    placement = held.tree.cut(1, 3)
    held.history.place(placement)
    (frame,) = frames_as_held(session_id(), held.tree, held.history)
    assert (told(frame), frame.first, frame.epoch) == ([1, 2, 3], 1, 1)


def test_an_empty_session_has_nothing_to_give() -> None:
    held = Held()
    assert list(frames_as_held(session_id(), held.tree, held.history)) == []
