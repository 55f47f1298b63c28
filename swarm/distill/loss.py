"""What a head learns from: the target's own distribution, and its features."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

LEAST_OVERLAP = 1e-6


@dataclass(frozen=True)
class LossWeights:
    """The terms of the loss.

    Attributes:
        acceptance: of the logarithm of the acceptance rate, -ln(sum of min(p, q)), which is what
            rejection sampling keeps of the drafts (Leviathan et al. 2023, arXiv 2211.17192).
        feature: of the smooth L1 distance between guessed and true features, as in EAGLE-1. It also
            keeps the size of features that are carried on.
    """

    acceptance: float = 0.5
    feature: float = 2.0


def losses(drafted: Tensor, judged: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """Compare a head's logits with the target's.

    Args:
        drafted: ``[n, rows]``.
        judged: ``[n, rows]``, the target's.

    Returns:
        The loss ``[n]``: cross-entropy, and the acceptance term; and the acceptance rate ``[n]``
        without gradient.
    """
    log_q = drafted.log_softmax(-1)
    p = judged.softmax(-1)
    overlap = torch.minimum(p, log_q.exp()).sum(-1)
    loss = -(p * log_q).sum(-1)
    if weights.acceptance:
        loss = loss - weights.acceptance * overlap.clamp(min=LEAST_OVERLAP).log()
    return loss, overlap.detach()


def feature_loss(guessed: Tensor, wanted: Tensor, scale: float) -> Tensor:
    """Return the smooth L1 distance of each row of ``[n, hidden]``, in units of ``scale``."""
    return smooth_l1_loss(guessed / scale, wanted / scale, reduction="none").mean(-1)
