"""A session's states are those of its text, whatever it rolls back to and however often."""

from itertools import pairwise

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.model.recurrent.states import MAX_SNAPSHOTS, States

KEY = (0, "recurrent", 0)
IN_PLACE = (0, "conv", 0)
MOST_AT_ONCE = 4  # rows that a forward reads again in front of new ones


def read(state: int, tokens: list[int]) -> int:
    """The state that a layer would compute: no two texts have the same."""
    for token in tokens:
        state = (state * 31 + token + 1) % 1_000_003
    return state


class Layer:
    """Two states as real layers keep them: one is replaced, one is written into."""

    def forward(self, states: States, tokens: list[int]) -> None:
        for key in (KEY, IN_PLACE):
            before = states.get(key)
            after = read(0 if before is None else int(before), tokens)
            if key == IN_PLACE and before is not None:
                before.fill_(after)
            else:
                states.put(key, torch.tensor([0, after])[1:])


class Session(RuleBasedStateMachine):
    """A text that grows, rolls back and moves its root, and the states that a span keeps of it."""

    def __init__(self) -> None:
        super().__init__()
        self.states = States()
        self.layer = Layer()
        self.text: list[int] = []
        self.root = 0  # rows that the text never loses again, unless all

    def forward(self, tokens: list[int], fails: bool = False) -> None:
        self.states.place(len(self.text), self.root)
        replayed = self.states.replayed()
        again = [] if replayed is None else replayed.tolist()
        assert again == self.text[self.states.row :]
        while len(again) > MOST_AT_ONCE:
            self.states.begin()
            self.layer.forward(self.states, again[:MOST_AT_ONCE])
            self.states.catch_up(MOST_AT_ONCE)
            again = again[MOST_AT_ONCE:]
            assert again == self.text[self.states.row :]
        self.states.begin()
        self.layer.forward(self.states, again + tokens)
        if not fails:
            self.states.advance(torch.tensor(tokens))
            self.text += tokens

    @rule(tokens=st.lists(st.integers(0, 99), min_size=1, max_size=9))
    def grow(self, tokens: list[int]) -> None:
        self.forward(tokens)

    @rule(tokens=st.lists(st.integers(0, 99), min_size=1, max_size=3))
    def fail(self, tokens: list[int]) -> None:
        """A forward that fails half-way leaves the session as it was."""
        self.forward(tokens, fails=True)

    @precondition(lambda self: self.root < len(self.text))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.root = data.draw(st.integers(self.root, len(self.text)))

    @rule(data=st.data(), at_once=st.booleans())
    def roll_back(self, data: st.DataObject, at_once: bool) -> None:
        """To any row from the root on, before the next frame comes or along with it."""
        row = data.draw(st.integers(self.root, len(self.text)))
        assert self.states.reaches(row)
        del self.text[row:]
        if at_once:
            self.states.place(row, self.root)

    @rule()
    def begin_anew(self) -> None:
        self.text, self.root = [], 0

    @rule()
    def part(self) -> None:
        """A copy goes on without the text that it was copied from."""
        left, self.states = self.states, self.states.copy()
        left.place(0, 0)
        left.begin()
        self.layer.forward(left, [1, 2])
        left.advance(torch.tensor([1, 2]))

    @invariant()
    def the_states_are_those_of_the_text(self) -> None:
        states = self.states.copy()
        states.place(len(self.text), self.root)
        again = states.replayed()
        for key in (KEY, IN_PLACE):
            states.begin()
            held = states.get(key)
            state = 0 if held is None else int(held)
            assert read(state, [] if again is None else again.tolist()) == read(0, self.text)

    @invariant()
    def memory_is_bounded(self) -> None:
        states = self.states
        assert len(states._snapshots) <= MAX_SNAPSHOTS
        held = [states._inputs[i].shape[0] for i in range(len(states._inputs))]
        assert sum(held) == states.length - states._snapshots[0].row


TestSession = Session.TestCase
TestSession.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def grown(*frames: int) -> States:
    """Return states that have read frames of this many tokens, with the root at the beginning."""
    states, layer = States(), Layer()
    for count in frames:
        states.place(states.length, 0)
        states.begin()
        layer.forward(states, [1] * count)
        states.advance(torch.ones(count, dtype=torch.long))
    return states


def rows(states: States) -> list[int]:
    return [snapshot.row for snapshot in states._snapshots]


def test_snapshots_lie_apart_where_there_are_too_many() -> None:
    assert rows(grown(1, 1, 1)) == [0, 1, 2, 3]
    for frames in (12, 256):
        kept = rows(grown(*[4] * frames))
        assert len(kept) == MAX_SNAPSHOTS
        assert max(b - a for a, b in pairwise(kept)) <= 2 * 4 * frames // MAX_SNAPSHOTS


def test_snapshots_before_the_root_are_dropped_but_one() -> None:
    states = grown(4, 4, 4)
    states.place(12, 9)
    assert rows(states) == [8, 12]
    assert [states.row_before(row) for row in (0, 8, 11, 12)] == [0, 8, 8, 12]
    assert [states.reaches(row) for row in (0, 7, 8, 9)] == [True, False, True, True]
    assert states.replayed() is None
    states.place(10, 9)
    assert rows(states) == [8]
    assert states.replayed().tolist() == [1, 1]


def test_a_state_keeps_no_memory_of_others_alive() -> None:
    states = States()
    together = torch.arange(8.0).reshape(4, 2)
    states.put(KEY, together[1:2])
    states.advance(torch.tensor([1]))
    held = states.get(KEY)
    assert torch.equal(held, together[1:2])
    assert states.nbytes == held.nbytes + 8
    assert states._snapshots[-1].tensors[KEY].untyped_storage().nbytes() == held.nbytes
