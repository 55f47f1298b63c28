"""How far honest answers may differ: kernels, batch shapes and dtypes round differently.

Two statistics over the positions of one text decide. The *median* finds lies at all positions, even
small ones. It ignores single tokens, which a rounding error may send to another expert. The share
of *outliers* finds lies that are large and rare. The tolerances are several times the differences
measured among honest peers, and far below those of 4-bit weights: `python -m swarm.sim.audits`
prints both, docs/security.md has them.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

# Fields of configurations that count experts.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TINY = 1e-12  # a norm above 0


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the relative L2 distance at each position, float32 ``[n]``, from 0 to 2.

    ``|a - b| / max(|a|, |b|)``.

    Args:
        one, other: ``[n, hidden]``, behind the final norm: raw hidden states have a few huge
            channels that would hide all others.
    """
    one = one.float()
    other = other.float()
    size = one.norm(dim=1).maximum(other.norm(dim=1)).clamp_min(TINY)
    relative: Tensor = (one - other).norm(dim=1) / size
    return relative


@dataclass(frozen=True)
class Tolerance:
    """Bounds for the distances between two honest chains.

    Attributes:
        median: the greatest median of the distances.
        outlier: distances above this are outliers: lies, or tokens sent to another expert.
        share: the greatest share of outliers.
    """

    median: float
    outlier: float
    share: float

    def holds(self, distances: Tensor) -> bool:
        """Return whether distances ``[n]`` are within the bounds; NaN never is."""
        if not distances.numel():
            return True
        distances = distances.nan_to_num(nan=float("inf"))
        outliers = (distances > self.outlier).float().mean()
        return bool(distances.median() <= self.median) and bool(outliers <= self.share)


FULL = Tolerance(median=1e-3, outlier=0.02, share=0.0)  # all peers compute in float32
HALF = Tolerance(median=3e-2, outlier=0.25, share=0.0)  # at least one computes in 16 bits
FULL_EXPERTS = Tolerance(median=1e-3, outlier=0.02, share=0.1)
HALF_EXPERTS = Tolerance(median=9e-2, outlier=0.5, share=0.1)


def has_experts(config: object) -> bool:
    """Return whether a model of this configuration chooses among experts."""
    return any((getattr(config, name, None) or 0) > 1 for name in EXPERTS)


def tolerance(dtypes: Collection[str], experts: bool) -> Tolerance:
    """Return the tolerance for two chains whose peers say they compute in these dtypes.

    Args:
        experts: the model chooses among experts for every token.
    """
    full = set(dtypes) <= {"float32"}
    if experts:
        return FULL_EXPERTS if full else HALF_EXPERTS
    return FULL if full else HALF
