"""Muon (Jordan et al. 2024): an optimiser of matrices."""

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalised update.

    `torch.optim.Muon` orthogonalises in bfloat16, which takes fifty times as long on a CPU without
    bfloat16 units.

    Args:
        decay: of the weights, at a learning rate of one. An update has singular values of about
            one, so no square or wide matrix comes to stretch anything by much more than
            ``1 / decay``; 0 bounds nothing.
        dtype: in which updates are orthogonalised. A CPU with units for bfloat16 takes about half
            as long in it.
    """

    def __init__(
        self,
        matrices: list[Tensor],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                smoothed = matrix.grad.lerp(average, group["momentum"])
                update = orthogonalize(smoothed.to(self._dtype))
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - group["lr"] * group["decay"])
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return roughly the nearest matrix with orthonormal rows or columns.

    By a quintic Newton-Schulz iteration (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x if matrix.shape[0] <= matrix.shape[1] else x.T
    return orthogonal
