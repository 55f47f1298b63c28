"""The report on lies finds the liar that it plays, and measures different honest answers."""

import torch

from swarm.audit.tolerance import FULL, distances
from swarm.sim.audits import Lab, Liar, Swarm, at_once, one_by_one
from swarm.sim.lies import LyingSpan, noise


def test_a_liar_is_found_in_its_first_text() -> None:
    lab = Lab(2)
    honest = lab.spans(torch.float32)
    found = Swarm(lab, honest, Liar("noise", LyingSpan(honest[1], noise)), seed=1).write(3)
    assert found.banned is not None
    assert 0 < found.noticed == found.banned <= 20
    assert found.innocent == 0


def test_honest_answers_differ_by_rounding_alone() -> None:
    lab = Lab(1)
    (text,), spans = lab.texts, lab.spans(torch.float32)
    one, other = (lab.run(spans, text[0], shape(*text, lab.rng)) for shape in (one_by_one, at_once))
    apart = distances(one, other)
    assert apart.max() > 0
    assert FULL.holds(apart)
