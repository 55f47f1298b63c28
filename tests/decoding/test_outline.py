"""Whether a text must not end before a part of it that is constrained."""

import pytest

from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline, Trigger

DIGITS = Constraint("regex", "[0-9]+")


@pytest.mark.parametrize(
    ("outline", "owes"),
    [
        (Outline(), False),
        (Outline(thoughts=("<think>", "</think>")), False),
        (Outline(answer=DIGITS), True),
        (Outline(triggers=(Trigger("<call>", DIGITS),)), False),  # a call may come, or none
        (Outline(triggers=(Trigger("<a>", DIGITS), Trigger("<b>", DIGITS, final=True))), True),
    ],
    ids=str,
)
def test_only_an_answer_and_a_final_part_are_owed(outline: Outline, owes: bool) -> None:
    assert outline.owes == owes
