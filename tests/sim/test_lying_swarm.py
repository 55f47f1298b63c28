"""A liar is found by the client that audits it."""

import torch

from swarm.sim.lab import Lab
from swarm.sim.lies import LyingSpan, noise
from swarm.sim.lying_swarm import Liar, LyingSwarm


def test_a_liar_is_found_in_its_first_text() -> None:
    lab = Lab(2)
    honest = lab.spans(torch.float32)
    found = LyingSwarm(lab, honest, Liar("noise", LyingSpan(honest[1], noise)), seed=1).write(3)
    assert found.banned is not None
    assert 0 < found.noticed == found.banned <= 20
    assert found.innocent == 0
