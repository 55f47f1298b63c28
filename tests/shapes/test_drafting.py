"""A lucky drafter says what the guesser says, and makes the real drafter work for it."""

import torch

from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.feature import Feature
from swarm.shapes.drafting import LuckyDrafter
from swarm.shapes.script import Guesser, Odds, Script

VOCAB = 100
TEXT = [5, 6, 7]
SCRIPT = Script.of(VOCAB, 64, ((1, 1.0),), ((1, 1.0),))


class Asked(Drafter):
    """Guesses token 1, and nothing behind ``ends``; notes what it is asked."""

    def __init__(self, ends: int = 1000) -> None:
        self.asked: list[tuple[list[list[int]], int]] = []
        self._ends = ends

    def draft_each(self, text, paths, count):
        self.asked.append(([list(path) for path in paths], count))
        guess = Drafted(1, None, 0.01)
        return [[guess] if len(text) + len(path) < self._ends else [] for path in paths]


def lucky(drafter: Drafter, alpha: float = 1.0) -> LuckyDrafter:
    return LuckyDrafter(drafter, Guesser(SCRIPT, Odds(alpha), VOCAB))


def tokens(drafted: list[Drafted]) -> list[int]:
    return [each.token for each in drafted]


def test_the_script_is_drafted_token_by_token_behind_what_took_its_place():
    inner = Asked()
    first, second, third = SCRIPT.tokens[3:6]
    assert tokens(lucky(inner).draft(TEXT, 3)) == [first, second, third]
    assert inner.asked == [([[]], 1), ([[first]], 1), ([[first, second]], 1)]


def test_paths_are_drafted_together():
    inner = Asked()
    drafted = lucky(inner).draft_each(TEXT, [[], [9]], 1)
    assert [tokens(each) for each in drafted] == [[SCRIPT.at(3)], [SCRIPT.at(4)]]
    assert inner.asked == [([[], [9]], 1)]


def test_a_path_ends_where_the_drafter_ends_it():
    drafted = lucky(Asked(ends=5)).draft_each(TEXT, [[], [9]], 4)
    assert [len(each) for each in drafted] == [2, 1]


def test_choices_come_with_the_chance_that_they_are_right():
    [guess] = lucky(Asked(), alpha=0.8).draft(TEXT, 1)
    assert guess.confidence == 0.8
    assert [chance for _, chance in guess.others] == [*Odds(0.8).by_rank[1:]]


class Reads(Asked):
    """Reads the target's states, too, and notes them."""

    prompt_features = 17
    taps = (1, 3)

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[int], list[Feature]]] = []

    def answered(self, text, features):
        self.told.append((list(text), list(features)))


def test_a_drafter_gets_the_states_that_it_reads():
    inner = Reads()
    drafter = lucky(inner)
    assert drafter.prompt_features == 17
    assert drafter.taps == (1, 3)
    feature = Feature((), 2, torch.zeros(4))
    drafter.answered(TEXT, [feature])
    assert inner.told == [(TEXT, [feature])]
