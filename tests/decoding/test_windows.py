"""The windows of a known text, and where a text can go on."""

import itertools

import pytest
import torch

from swarm.decoding.drafting.feature import Feature
from swarm.decoding.windows import NOTHING_HELD, ResumePoint, Window, windows

TEXT = (5, 6, 7, 8, 9)


def test_windows_follow_each_other_up_to_the_texts_end() -> None:
    assert list(windows(TEXT, itertools.repeat(2))) == [
        Window(0, 0, 1, (5, 6), None, tail=2, position=0),
        Window(0, 2, 3, (7, 8), None, tail=2, position=2),
        Window(0, 4, 5, (9,), None, tail=1, position=4),
    ]
    assert [len(each.tokens) for each in windows(TEXT, (3, 1, 9, 9))] == [3, 1, 1]
    assert list(windows((), itertools.repeat(2))) == []


@pytest.mark.parametrize(
    ("answered_from", "predicted_from", "tails", "features"),
    [
        (0, 0, [2, 2, 1], [0, 0, 0]),
        (3, 0, [0, 1, 1], [0, 0, 0]),
        (4, 4, [0, 0, 1], [0, 0, 0]),
        (1, 3, [1, 2, 1], [1, 1, 0]),
        (0, 9, [2, 2, 1], [2, 2, 1]),
        (9, 9, [0, 0, 0], [0, 0, 0]),
    ],
)
def test_answers_are_wanted_from_a_position_on(
    answered_from: int, predicted_from: int, tails: list[int], features: list[int]
) -> None:
    """Those before the first prediction are only for a drafter."""
    made = list(windows(TEXT, itertools.repeat(2), answered_from, predicted_from))
    assert [each.tail for each in made] == tails
    assert [each.features for each in made] == features


def test_a_session_may_begin_with_a_part_of_what_is_held() -> None:
    known = tuple(Feature(at, (), torch.zeros(1)) for at in (1, 2, 3))
    point = ResumePoint(epoch=4, root=9, last=12, tokens=TEXT, features=known)
    beginning = point.beginning(3)
    assert beginning == ResumePoint(epoch=0, root=3, last=3, tokens=(5, 6, 7))
    assert beginning.features == known[:2]
    assert NOTHING_HELD.beginning(0) == NOTHING_HELD
