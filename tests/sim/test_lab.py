"""The lab measures honest answers that differ by rounding alone."""

import torch

from swarm.audit.tolerance import FULL, distances
from swarm.sim.lab import Lab, at_once, one_by_one


def test_honest_answers_differ_by_rounding_alone() -> None:
    lab = Lab(1)
    (text,), spans = lab.texts, lab.spans(torch.float32)
    one, other = (lab.run(spans, text[0], sizes(*text, lab.rng)) for sizes in (one_by_one, at_once))
    apart = distances(one, other)
    assert apart.max() > 0
    assert FULL.holds(apart)
