"""How far honest answers may differ: kernels, batch shapes and dtypes round differently.

Two statistics over the positions of one text decide. The *median* finds lies at all positions, even
small ones. It ignores single tokens, which a rounding error may send to another expert. The share
of *outliers* finds lies that are large and rare. The tolerances are several times the differences
measured among honest peers, and far below those of 4-bit weights: `python -m swarm.sim.audits`
prints both, docs/security.md has them.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swarm.decoding.candidates import CandidateRow

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


def candidate_distances(one: Sequence[CandidateRow], other: Sequence[CandidateRow]) -> Tensor:
    """Return the relative L2 distance of two heads' answers at each position, float32 ``[n]``.

    They are compared at all tokens that either lists, as nats above an even distribution: then
    neither a common shift nor the size of the vocabulary counts. A token that one of them does not
    list has at most the least of its best logits there.
    """
    pairs = zip(one, other, strict=True)
    return torch.tensor([_candidate_distance(a, b) for a, b in pairs], dtype=torch.float32)


def _candidate_distance(one: CandidateRow, other: CandidateRow) -> float:
    tokens = torch.from_numpy(np.union1d(one.tokens.numpy(), other.tokens.numpy()))
    a, b = _nats(one, tokens), _nats(other, tokens)
    a = torch.where(a.isnan(), b.minimum(_least_nats(one)), a)
    b = torch.where(b.isnan(), a.minimum(_least_nats(other)), b)
    size = float(a.norm().maximum(b.norm()).clamp_min(TINY))
    return float((a - b).norm()) / size


def _nats(row: CandidateRow, tokens: Tensor) -> Tensor:
    """Return logits relative to the even distribution, float64; NaN for tokens not listed."""
    nats = torch.full((len(tokens),), math.nan, dtype=torch.float64)
    nats[torch.searchsorted(tokens, row.tokens)] = row.logits.double() - _even(row)
    return nats


def _least_nats(row: CandidateRow) -> Tensor:
    return row.logits[min(row.plain, len(row.logits)) - 1].double() - _even(row)


def _even(row: CandidateRow) -> float:
    """Return the logit that all tokens would have if they shared the row's mass evenly."""
    return row.log_sum - math.log(row.vocabulary)


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
