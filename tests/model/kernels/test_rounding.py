"""What is rounded to int8 is near to what it stands for."""

import torch

from swarm.model.kernels.rounding import rounded_weight


def test_a_weight_is_within_half_a_step_and_stays_as_it_was() -> None:
    weight = torch.randn(300, 2000, generator=torch.Generator().manual_seed(3))
    weight[7] = 0.0
    before = weight.clone()
    rounded, scale = rounded_weight(weight)
    assert torch.equal(weight, before)
    assert rounded.dtype == torch.int8
    error = (rounded * scale[:, None] - weight).abs()
    assert bool((error <= scale[:, None] * 0.5001).all())
    assert not rounded[7].any()
