"""How far honest answers may be from each other: kernels, batch shapes and dtypes round
differently.

Two statistics over the positions of one text. The *median* tells lies that are everywhere, however
small; where a router of experts sits between two of them, a rounding error may send single tokens
another way, and the median does not care. The share of *outliers* tells lies that are large and
rare. The figures are several times what honest peers were measured to differ by, and far below what
4-bit weights do: `python -m swarm.sim.audits` prints both, docs/security.md has them.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

# in configurations
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Tolerance:
    """What two honest chains keep to.

    Attributes:
        median: of the distances, at most.
        outlier: a distance that only a lie has, or another expert.
        share: of outliers among the positions, at most.
    """

    median: float
    outlier: float
    share: float

    def holds(self, distances: Tensor) -> bool:
        """Whether distances ``[n]`` are such as honest chains have.

        What is not a number is no honest distance.
        """
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
    """Whether a model of this configuration chooses among experts."""
    return any((getattr(config, name, None) or 0) > 1 for name in EXPERTS)


def tolerance(dtypes: Collection[str], experts: bool) -> Tolerance:
    """For two chains of peers that say to compute in these dtypes.

    Args:
        experts: the model chooses among experts for every token.
    """
    full = set(dtypes) <= {"float32"}
    if experts:
        return FULL_EXPERTS if full else HALF_EXPERTS
    return FULL if full else HALF
