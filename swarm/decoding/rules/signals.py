"""What two distributions over the vocabulary say about a position. All take natural-log probabilities.

The three signals are those that DSD names (arXiv 2511.11733); the formulas are our reconstruction.
"""

import torch
from torch import Tensor


def entropy(log_p: Tensor) -> float:
    """H(p) = - sum p log p, in nats; tokens of probability 0 add nothing."""
    return float(torch.special.entr(log_p.exp()).sum())


def entropy_contrast(log_p: Tensor, log_q: Tensor) -> float:
    """H(q) - H(p), in nats: how much surer the target is than the draft."""
    return entropy(log_q) - entropy(log_p)


def top1_gap(log_p: Tensor) -> float:
    """p of the best token minus p of the second, 0 to 1."""
    best = log_p.topk(min(2, log_p.shape[-1])).values.exp()
    return float(best[0] - best[1]) if len(best) > 1 else 1.0


def agreement(log_p: Tensor, log_q: Tensor) -> float:
    """Sum of min(p, q), 0 to 1: the acceptance rate that rejection sampling would have here."""
    return float(torch.minimum(log_p, log_q).exp().sum())
