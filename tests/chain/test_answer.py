"""An answer belongs to windows, and each has its own part of it."""

import torch

from helpers.chain_answers import WIDTH
from swarm.chain.answer import ChainAnswer
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.windows import Window
from swarm.outputs import Measured

MEASURED = Measured(0.0, (), ())


def window(first: int, count: int, tail: int, epoch: int = 2) -> Window:
    return Window(epoch, 0, first, (7,) * count, None, tail, first - 1)


WINDOWS = (window(5, 3, tail=2), window(8, 2, tail=0), window(10, 1, tail=1, epoch=3))


def test_it_is_about_all_tokens_of_its_windows() -> None:
    answer = ChainAnswer(WINDOWS, torch.zeros(3, WIDTH), MEASURED, 0.0)
    assert (answer.epoch, answer.first, answer.last) == (3, 5, 10)
    alone = ChainAnswer(WINDOWS[:1], torch.zeros(2, WIDTH), MEASURED, 0.0)
    assert (alone.epoch, alone.first, alone.last) == (2, 5, 7)


def test_each_window_has_as_many_rows_as_it_asked_for() -> None:
    hidden = torch.arange(3.0)[:, None].expand(-1, WIDTH)
    rows = list(ChainAnswer(WINDOWS, hidden, MEASURED, 0.0).rows)
    assert [own for own, _ in rows] == list(WINDOWS)
    assert [part[:, 0].tolist() for _, part in rows if isinstance(part, torch.Tensor)] == [
        [0.0, 1.0],
        [],
        [2.0],
    ]


def test_candidates_take_the_place_of_hidden_states() -> None:
    told = tuple(
        CandidateRow(torch.tensor([token]), torch.zeros(1), 0.0, 0.0, 1, 0, vocabulary=9)
        for token in range(3)
    )
    answer = ChainAnswer(WINDOWS, torch.empty(0, WIDTH), MEASURED, 0.0, candidates=told)
    assert [(own, tuple(part)) for own, part in answer.rows] == [
        (WINDOWS[0], told[:2]),
        (WINDOWS[1], ()),
        (WINDOWS[2], told[2:]),
    ]
