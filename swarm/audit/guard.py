"""A plausibility check of every answer, before the client uses it."""

import math
from collections import deque

import torch
from torch import Tensor

ENOUGH = 64  # norms to see before any is judged
MAX_SEEN = 1024  # norms
WIDEN = 32.0  # the factor around the usual norms: those of single tokens may be many times as large


class Guard:
    """Judges the final hidden states of one model by the norms seen so far."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=MAX_SEEN)  # natural logarithms
        self._band: tuple[float, float] | None = None

    def objection(self, hidden: Tensor) -> str | None:
        """Return why ``hidden`` ``[n, hidden]`` cannot be an answer, in words; None if it can."""
        if not hidden.numel():
            return None
        norms = hidden.float().norm(dim=1)
        if not bool(torch.isfinite(norms).all()):
            return "its answer is not finite"
        least = float(norms.min())
        most = float(norms.max())
        if least <= 0.0:
            return "its answer is zero"
        if self._band is not None:
            low, high = self._band
            if not low <= least <= most <= high:
                usual = f"{low:.3g} to {high:.3g} are usual"
                return f"its answer has sizes of {least:.3g} to {most:.3g}, where {usual}"
        self._learn(norms)
        return None

    def _learn(self, norms: Tensor) -> None:
        self._norms += norms.log().tolist()
        if len(self._norms) >= ENOUGH:
            ordered = sorted(self._norms)
            percentile = len(ordered) // 100
            low = math.exp(ordered[percentile]) / WIDEN
            high = math.exp(ordered[-1 - percentile]) * WIDEN
            self._band = low, high
