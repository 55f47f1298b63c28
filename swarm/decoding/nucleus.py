"""Which tokens top k, top p and min p keep, as far as bounds of a row tell."""

import torch
from torch import Tensor

from swarm.decoding.sampling import LEAST_TOP_P, Sampling

# What `swarm.decoding.sampling.restrict` may be off, in shares of the mass: it sums in float32.
# Whether a token is kept that is so near to the edge is not told.
MASS_SLACK = 1e-4
EDGE_TOKENS = 1024  # among which the edge of the nucleus is looked for


class Nucleus:
    """The tokens that `Sampling.restricted` keeps in any row between two bounds.

    Args:
        lower: ``[vocabulary]``, scaled by the temperature.
        upper: the same; equal where the logit is known exactly.

    Attributes:
        possible: ``[vocabulary]``, false where a token is not kept, whatever its logit is.
    """

    def __init__(self, lower: Tensor, upper: Tensor, sampling: Sampling) -> None:
        self._lower = lower
        self._upper = upper
        self._top_p = max(sampling.top_p, LEAST_TOP_P)
        self.possible = torch.ones_like(lower, dtype=torch.bool)
        self._among_top_k = self.possible  # whatever the logits are
        if 0 < sampling.top_k < len(lower):
            self._among_top_k = lower >= upper.topk(sampling.top_k).values[-1]
            self.possible = upper >= lower.topk(sampling.top_k).values[-1]
        if self._top_p < 1.0:
            self._least = lower.double().exp_().masked_fill_(~self._among_top_k, 0.0)
            self._most = upper.double().exp_().masked_fill_(~self.possible, 0.0)
            self.possible = self.possible & (upper >= self._edge())
        if sampling.min_p:
            self.possible = self.possible & (upper >= sampling.least)

    def _edge(self) -> float:
        """Return a bound below which no logit can be kept by top p."""
        likeliest = self._lower.topk(min(EDGE_TOKENS, len(self._lower)))
        least = self._least[likeliest.indices].cumsum(dim=0)
        rest = self._most.sum() - self._most[likeliest.indices].cumsum(dim=0)
        beyond = least >= (self._top_p + MASS_SLACK) * (least + rest.clamp_(min=0.0))
        beyond &= least > 0.0
        return float(likeliest.values[beyond.int().argmax()]) if beyond.any() else -torch.inf

    def keeps(self, token: int) -> bool | None:
        """Return whether an exactly known token is kept; None if the bounds do not tell."""
        if not self.possible[token]:
            return False
        among_top_k = bool(self._among_top_k[token])
        if self._top_p >= 1.0:
            return among_top_k or None
        least, most = self._mass_before(token)
        if least >= self._top_p + MASS_SLACK:
            return False
        # The first token has nothing before it, and is kept whatever top p is.
        inside = most == 0.0 or most < self._top_p - MASS_SLACK
        return True if inside and among_top_k else None

    def _mass_before(self, token: int) -> tuple[float, float]:
        """Return the least and the greatest share of the mass that comes before a token."""
        value = self._lower[token]
        own = float(value.double().exp())
        surely_before = self._lower > value
        maybe_before = self._upper >= value
        maybe_before[token] = False
        least = float(self._least[surely_before].sum())
        least_rest = float(self._least[~maybe_before].sum())
        most = float(self._most[maybe_before].sum())
        most_rest = float(self._most[~surely_before].sum())
        return _share(least, max(most_rest, own)), _share(most, max(least_rest, own))


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part else 0.0
