"""Where a committed token comes from, and how the target's choice is found."""

import pytest
import torch

from swarm.decoding.rules.rule import Decision, Origin, chosen
from swarm.decoding.sampling import Sampling


@pytest.mark.parametrize(
    ("decision", "origin", "kept"),
    [
        (Decision(5, 5), "drafted", True),
        (Decision(5, 5, choice=6), "relaxed", True),
        (Decision(6, 5), "corrected", False),
        (Decision(6, 5, branch=True), "branch", False),
        (Decision(6, None), "target", False),
    ],
)
def test_a_decision_says_where_its_token_comes_from(
    decision: Decision, origin: Origin, kept: bool
) -> None:
    assert (decision.origin, decision.kept) == (origin, kept)


def test_a_choice_that_is_known_needs_no_row() -> None:
    row = torch.tensor([0.0, 2.0, 1.0])
    assert chosen(Sampling(), None, 9, (4, 0), 1) == 0, "token 0 is a choice, too"
    assert chosen(Sampling(), row, 9, (4, None), 1) == 1
    assert chosen(Sampling(), row, 9, (4,), 1) == 1


def test_a_choice_is_drawn_by_its_own_position() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    row = torch.zeros(50)
    assert [chosen(sampling, row, position, (), 0) for position in (4, 5)] == sampling.choose(
        row.expand(2, -1), 4
    )
