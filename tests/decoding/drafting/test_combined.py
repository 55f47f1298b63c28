"""Several drafters in turn: the next goes on where the one before it ended."""

import pytest

from swarm.decoding.drafting.combined import Cascade
from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.lookup import LookupDrafter


class Scripted(Drafter):
    """Drafts what it is given to say, and keeps what it was asked."""

    def __init__(self, *words):
        self.words = words
        self.asked = []

    def draft(self, sequence, count):
        self.asked.append((list(sequence), count))
        return [Drafted(word) for word in self.words[:count]]


def tokens(drafted):
    return [guess.token for guess in drafted]


def test_the_first_that_fills_the_window_is_the_only_one_asked():
    first, second = Scripted(7, 8, 9), Scripted(1)
    assert tokens(Cascade([first, second]).draft([5], 3)) == [7, 8, 9]
    assert second.asked == []


@pytest.mark.parametrize(
    ("said", "then"), [((), [1, 2, 3]), ((7,), [7, 1, 2]), ((7, 8), [7, 8, 1])]
)
def test_the_next_goes_on_where_the_first_ended(said, then):
    first, second = Scripted(*said), Scripted(1, 2, 3)
    assert tokens(Cascade([first, second]).draft((5, 6), 3)) == then
    assert second.asked == [([5, 6, *said], 3 - len(said))]


def test_nothing_is_asked_behind_a_stop_token():
    first, second = Scripted(7, 2), Scripted(1)
    assert tokens(Cascade([first, second], frozenset({2})).draft([5], 4)) == [7, 2]
    assert second.asked == []


def test_each_of_several_paths_goes_to_the_next_for_what_it_misses():
    class Together(Scripted):
        def draft_each(self, text, paths, count):
            self.asked.append((list(text), [list(path) for path in paths], count))
            return [[Drafted(word) for word in self.words[:count]] for _ in paths]

    model = Together(8, 9)
    cascade = Cascade([LookupDrafter(stop_ids=frozenset({4})), model], frozenset({4}))
    drafted = cascade.draft_each([1, 2, 3, 4, 1, 5], [[1, 2], [], [6]], 2)
    assert list(map(tokens, drafted)) == [[3, 4], [8, 9], [8, 9]]
    assert model.asked == [([1, 2, 3, 4, 1, 5], [[], [6]], 2)]
    drafted = Cascade([LookupDrafter(), model]).draft_each([1, 2, 3], [[1, 2], [7]], 1)
    assert list(map(tokens, drafted)) == [[3], [8]]


def test_nothing_asked_nothing_drafted():
    first = Scripted(7)
    assert Cascade([first]).draft([5], 0) == []
    assert first.asked == []
    assert Cascade([]).draft([5], 4) == []


def test_copies_first_then_the_model():
    text, model = [1, 2, 3, 4, 1, 2], Scripted(8, 9)
    cascade = Cascade([LookupDrafter(stop_ids=frozenset({4})), model], frozenset({4}))
    assert tokens(cascade.draft(text, 2)) == [3, 4]
    assert tokens(cascade.draft([*text, 7], 2)) == [8, 9]
    assert model.asked == [([*text, 7], 2)]
