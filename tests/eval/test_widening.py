"""The cost of packed weights is told for every format."""

import torch

from swarm.eval.widening import FRAMES, LAYOUTS, markdown, measure


def test_every_format_has_a_line() -> None:
    figures = measure(256, (torch.float32, torch.bfloat16))
    assert [each.name for each in figures] == list(LAYOUTS)
    assert all(4 <= each.bits < 9 for each in figures)
    assert all(len(each.times_as_long) == 2 * len(FRAMES) for each in figures)
    lines = markdown(figures).splitlines()
    assert lines[0] == "| | bits a weight | float32, 1 | float32, 16 | bfloat16, 1 | bfloat16, 16 |"
    assert len(lines) == 2 + len(LAYOUTS)
    assert {line.count("|") for line in lines} == {3 + 2 * len(FRAMES)}
