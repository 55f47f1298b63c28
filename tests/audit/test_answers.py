"""Two answers are compared at the same places of the same text, or not at all."""

import pytest
import torch

from swarm.audit.answers import Answers, Incomparable

TEXT = (5, 6, 7, 8, 9)


def answers(*positions: int, text: tuple[int, ...] = TEXT, width: int = 3) -> Answers:
    rows = [[float(place + 1)] * width for place in positions]
    return Answers(text, positions, torch.tensor(rows).reshape(len(positions), width))


def test_each_position_is_compared_with_itself() -> None:
    assert answers(1, 4).distances(answers(1, 4)).tolist() == [0.0, 0.0]
    other = Answers(TEXT, (1, 4), torch.tensor([[2.0] * 3, [10.0] * 3]))
    assert answers(1, 4).distances(other).tolist() == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize(
    "other",
    [answers(1, 3), answers(1), answers(1, 4, text=(5, 6, 7, 8, 1)), answers(1, 4, width=4)],
    ids=["another place", "fewer places", "another text", "another width"],
)
def test_what_does_not_belong_together_is_not_compared(other: Answers) -> None:
    with pytest.raises(Incomparable):
        answers(1, 4).distances(other)


@pytest.mark.parametrize(
    ("positions", "rows"),
    [((), 0), ((1,), 2), ((1, 2), 1), ((2, 1), 2), ((1, 1), 2), ((-1,), 1), ((5,), 1)],
)
def test_there_is_one_row_for_each_position_within_the_text(
    positions: tuple[int, ...], rows: int
) -> None:
    with pytest.raises(Incomparable):
        Answers(TEXT, positions, torch.ones(rows, 3))
