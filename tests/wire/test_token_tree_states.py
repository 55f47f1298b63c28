"""Any sequence of frames, cancels, cuts and replays leaves what the rule of the tree says."""

import copy
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarm.wire import token_tree as streams
from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import MAX_TAIL, OutOfOrder, Placement, TokenTree, replayed


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


@dataclass(frozen=True)
class Token:
    """A token as the text has it: those that it follows, from the first on, and itself."""

    path: tuple[int, ...]

    @property
    def serial(self) -> int:
        return self.path[-1]


class Held(RuleBasedStateMachine):
    """`TokenTree` beside the set of tokens that its rule allows, and the rows of a reader that
    follows its placements."""

    @initialize(tail=st.sampled_from([6, 12, MAX_TAIL]), frame=st.sampled_from([2, 5]))
    def begin(self, tail: int, frame: int) -> None:
        streams.MAX_TAIL, streams.MAX_FRAME_TOKENS = tail, frame  # small enough to be met
        self.tail = tail
        self.resumed = False  # behind a cut or a replay
        self.stream = TokenTree()
        self.root: tuple[int, ...] = ()  # the path to it
        self.tokens: list[Token] = []  # in the order in which they came
        self.rows: list[Token] = []

    def teardown(self) -> None:
        streams.MAX_TAIL, streams.MAX_FRAME_TOKENS = MAX_TAIL, MAX_FRAME_TOKENS

    def paths(self, root: tuple[int, ...], tokens: list[Token]) -> list[tuple[int, ...]]:
        """Of everything that may be a parent."""
        return [root, *(token.path for token in tokens if len(token.path) > len(root))]

    @rule(data=st.data(), newer=st.booleans(), skip=st.integers(1, 3))
    def send(self, data: st.DataObject, newer: bool, skip: int) -> None:
        epoch = max(self.stream.epoch + skip * newer, self.stream.ahead)
        newer = epoch > self.stream.epoch
        root = self.draw_root(data, newer)
        first = self.stream.last + (skip if newer or self.resumed else 1)
        leads = self.leads(root)
        follows = [
            t for t in self.tokens if t.path[: len(root)] == root and t.path != root and not newer
        ]
        new: list[Token] = []
        for serial in range(first, first + data.draw(st.integers(1, 5), label="count")):
            parent = data.draw(st.sampled_from(self.paths(root, follows + new)), label="parent")
            new.append(Token((*parent, serial)))
        parents = tuple(token.serial - (token.path[-2] if token.path[1:] else 0) for token in new)
        frame = (
            epoch,
            root[-1] if root else 0,
            first,
            len(new),
            None if set(parents) == {1} else parents,
        )
        if len(follows) + len(new) > self.tail:
            refused(self.stream, *frame)
            return
        placed = self.stream.admit(*frame)
        assert placed is not None
        self.root, self.tokens, self.resumed = root, leads + follows + new, False
        self.move(placed, new)

    @rule(data=st.data(), skip=st.integers(1, 3))
    def cut(self, data: st.DataObject, skip: int) -> None:
        root = self.draw_root(data, newer=True)
        placed = self.stream.cut(
            max(self.stream.epoch + skip, self.stream.ahead), root[-1] if root else 0
        )
        self.root, self.tokens, self.resumed = root, self.leads(root), True
        self.move(placed, [])

    @rule(data=st.data(), skip=st.integers(1, 3), cancel=st.integers(0, 2))
    def let_another_peer_take_the_place(self, data: st.DataObject, skip: int, cancel: int) -> None:
        """It is told the way to a root under serials of which only the last one is as it was."""
        root, epoch = (
            self.draw_root(data, newer=True),
            max(self.stream.epoch + skip, self.stream.ahead),
        )
        self.stream, self.root, self.rows, self.resumed = TokenTree(), (), [], bool(root)
        self.stream.cancel(epoch + cancel, replays=False)
        last = root[-1] if root else 0
        self.tokens = [
            Token(tuple(range(last - len(root) + 1, end + 1)))
            for end in range(last - len(root) + 1, last + 1)
        ]
        for first, which, before, parents in replayed(last, len(root)):
            new = self.tokens[which]
            placed = self.stream.admit(epoch, before, first, len(new), parents, replay=True)
            assert placed is not None
            self.root = self.tokens[which.start - 1].path if which.start else ()
            self.move(placed, new)

    def draw_root(self, data: st.DataObject, newer: bool) -> tuple[int, ...]:
        """Near the old root, mostly: else nearly all is forgotten every time."""
        roots = self.paths(self.root, self.tokens)
        seldom = [(), *roots] if newer else roots
        return data.draw(st.sampled_from(roots[:3]) | st.sampled_from(seldom), label="root")

    def leads(self, root: tuple[int, ...]) -> list[Token]:
        return [token for token in self.tokens if root[: len(token.path)] == token.path]

    def move(self, placed: Placement, new: list[Token]) -> None:
        to = placed.start - len(placed.keep)
        assert all(row > to + i for i, row in enumerate(placed.keep))
        assert list(placed.keep) == sorted(set(placed.keep))
        self.rows[to:] = [self.rows[row] for row in placed.keep] + new
        for i, (token, position) in enumerate(zip(new, placed.positions, strict=True)):
            assert position == len(token.path) - 1
            if placed.sees is None:
                seen = self.rows[: placed.start + i + 1]
            else:
                behind = [
                    row
                    for n, row in enumerate(self.rows[placed.trunk :])
                    if placed.sees[i] >> n & 1
                ]
                seen = self.rows[: placed.trunk] + behind
            assert tuple(each.serial for each in seen) == token.path

    @rule(skip=st.integers(0, 2))
    def let_another_peer_hold_the_same(self, skip: int) -> None:
        """It stands by from now on: the serials that lead to the root are told as if they followed
        each other."""
        before, self.stream = self.stream, TokenTree()
        self.stream.cancel(before.epoch - min(skip, before.epoch))
        told = list(before.replay_chunks())
        for first, which, root, parents in told:
            count = which.stop - which.start
            assert count <= streams.MAX_FRAME_TOKENS
            placed = self.stream.admit(before.epoch, root, first, count, parents, replay=True)
            assert placed is not None
            assert (placed.start, placed.keep) == (which.start, ())
        if not told:
            self.stream = before
            return
        at, root = len(self.root), before.root
        renamed = (*range(root - at + 1, root + 1),)
        self.tokens = [Token(renamed[: len(t.path)] + t.path[at:]) for t in self.tokens]
        # what the last frame tells lies behind its root
        self.root = renamed[: min(at, which.start)]
        self.rows, self.resumed = list(self.tokens), True
        self.stream.cancel(before.ahead, replays=False)

    @rule(data=st.data())
    def copy_a_beginning(self, data: st.DataObject) -> None:
        """For another session, whose only tokens these are; this one stays as it is."""
        before = copy.deepcopy(self.stream)
        path = data.draw(st.sampled_from(self.paths(self.root, self.tokens)), label="path")
        count = data.draw(st.integers(1, len(path) + 2), label="count")
        placed = self.stream.beginning(path[-1] if path else 99, count)
        assert self.stream == before
        if count > len(path):
            assert placed is None
            return
        assert placed is not None
        assert (placed.start, placed.trunk, placed.positions) == (count, count, ())
        still = placed.start - len(placed.keep)
        rows = self.rows[:still] + [self.rows[row] for row in placed.keep]
        assert tuple(token.serial for token in rows) == path[:count]
        fork = TokenTree.holding(count)
        assert (fork.length, fork.root, fork.last) == (count, count, count)
        assert fork.admit(0, count, count + 1, 2) == Placement(
            count, (), (count, count + 1), trunk=count, sees=None
        )

    @precondition(lambda self: self.stream.epoch)
    @rule(data=st.data())
    def send_late(self, data: st.DataObject) -> None:
        before = copy.deepcopy(self.stream)
        epoch = data.draw(st.integers(0, max(self.stream.epoch, self.stream.ahead) - 1))
        assert self.stream.admit(epoch, 0, data.draw(st.integers(1, 99)), 1) is None
        assert self.stream == before

    @rule(epoch=st.integers(0, 20))
    def cancel(self, epoch: int) -> None:
        self.stream.cancel(epoch)

    @invariant()
    def holds_what_leads_to_its_root_and_follows_from_it(self) -> None:
        if hasattr(self, "stream"):
            assert self.rows == self.tokens
            assert self.stream.length == len(self.tokens)
            assert self.stream.trunk == len(self.root)


Held.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestHeld = Held.TestCase
