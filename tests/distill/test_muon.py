"""Updates of matrices come out nearly orthonormal, in both dtypes."""

import pytest
import torch

from swarm.distill.muon import Muon, orthogonalize


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24, 64), (64, 24)])
def test_an_update_turns_and_stretches_nothing(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Newton and Schulz's iteration, as it is used, brings singular values near to one."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonalize(matrix.to(dtype)).float())
    assert values.min() > 0.3
    assert values.max() < 1.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_goes_down_and_keeps_the_weights_dtype(dtype: torch.dtype) -> None:
    wanted = torch.randn(16, 32, generator=torch.Generator().manual_seed(4))
    weight = torch.nn.Parameter(torch.zeros(16, 32))
    muon = Muon([weight], lr=0.2, dtype=dtype)
    losses = []
    for _ in range(60):
        loss = (weight - wanted).square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        muon.step()
        muon.zero_grad()
    assert losses[-1] < losses[0] / 4
    assert weight.dtype == torch.float32


@pytest.mark.parametrize(("decay", "most"), [(0.5, 2.5), (0.0, 25.0)])
def test_decay_bounds_what_a_matrix_stretches(decay: float, most: float) -> None:
    """A hundred steps the same way: without decay a matrix grows with every step."""
    weight = torch.nn.Parameter(torch.zeros(16, 32))
    muon = Muon([weight], lr=0.2, decay=decay)
    downhill = torch.randn(16, 32, generator=torch.Generator().manual_seed(5))
    for _ in range(100):
        weight.grad = downhill.clone()
        muon.step()
    stretch = float(torch.linalg.svdvals(weight.detach()).max())
    assert most / 2 < stretch < most
