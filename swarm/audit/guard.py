"""Is an answer possible at all? What every reply is checked for, before anything is made of it."""

import math
from collections import deque

import torch
from torch import Tensor

ENOUGH = 64  # norms to have seen before sizes are judged
MAX_SEEN = 1024
WIDEN = 32.0  # single tokens' hidden states may be many times as large as others'


class Guard:
    """Judges the final hidden states of one model, by the sizes that they have had so far."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=MAX_SEEN)  # natural logarithms
        self._band: tuple[float, float] | None = None

    def objection(self, hidden: Tensor) -> str | None:
        """Why ``hidden`` ``[n, hidden]`` cannot be an answer, in words; None if it can."""
        if not hidden.numel():
            return None
        norms = hidden.float().norm(dim=1)
        if not bool(torch.isfinite(norms).all()):
            return "its answer is not finite"
        least, most = float(norms.min()), float(norms.max())
        if least <= 0.0:
            return "its answer is zero"
        if self._band is not None and not self._band[0] <= least <= most <= self._band[1]:
            return (
                f"its answer has sizes of {least:.3g} to {most:.3g}, where {self._said} are usual"
            )
        self._learn(norms)
        return None

    @property
    def _said(self) -> str:
        assert self._band is not None
        return f"{self._band[0]:.3g} to {self._band[1]:.3g}"

    def _learn(self, norms: Tensor) -> None:
        self._norms += norms.log().tolist()
        if len(self._norms) >= ENOUGH:
            ordered = sorted(self._norms)
            low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
            self._band = math.exp(low) / WIDEN, math.exp(high) * WIDEN
