"""RMS norms in one operation each; models' own code takes seven.

A draft model has four norms a layer, and each operation on a few tokens costs its start.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

ROWS = 3  # that a norm is compared with its own code on
TOLERANCE = 1e-5


class FusedNorm(nn.Module):
    """``x / sqrt(mean(x^2) + epsilon) * weight`` over the last dimension, in float32."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self.epsilon)


@torch.no_grad()
def fuse_norms(model: nn.Module) -> None:
    """Replace the norms of a model that compute the same so, in place; others stay."""
    for name, module in list(model.named_modules()):
        if (fused := _fused(module)) is not None:
            model.set_submodule(name, fused)


def _fused(module: nn.Module) -> FusedNorm | None:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, Tensor) or weight.dim() != 1 or not isinstance(epsilon, float):
        return None
    if weight.dtype != torch.float32:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, len(weight), generator=generator).to(weight.device)
    try:
        expected = module(x)
    except (RuntimeError, TypeError, ValueError):  # it is no norm
        return None
    for factor in (weight.detach(), 1.0 + weight.detach()):  # the latter in Gemma
        fused = FusedNorm(factor, epsilon)
        if torch.allclose(fused(x), expected, rtol=TOLERANCE, atol=TOLERANCE):
            return fused
    return None
