"""One step of learning: the loss of a batch, over answered slots and rollouts behind them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.distill.batches import Batch
from swarm.distill.frozen import Frozen
from swarm.distill.loss import LossWeights, feature_loss, losses
from swarm.distill.trainable_head import TrainableHead
from swarm.distill.unroll import Rollouts, unroll


@dataclass(frozen=True)
class Lags:
    """How far behind the answers a head learns to draft.

    Attributes:
        steps: slots of a rollout; 0 learns from answered features alone.
        share: slots of rollouts for each answered slot.
        least: the lag of streams in which answers follow is drawn from here to ``steps``.
        streams: the share of rollouts in which answers follow; in the others none comes.
    """

    steps: int = 16
    share: float = 1.0
    least: int = 2
    streams: float = 0.5


def draw_rollouts(
    first: Tensor, end: Tensor, lags: Lags, generator: torch.Generator
) -> Rollouts | None:
    """Draw anchors in the slots ``[first, end)`` of each text, and lags.

    Returns:
        As many for each text as ``lags`` says for a mean one; None without steps.
    """
    if not lags.steps:
        return None
    drafting = (end - first).float()
    count = max(1, round(lags.share * float(drafting.mean()) / lags.steps))
    device = first.device
    chances = torch.rand((len(first), count), generator=generator).to(device)
    anchors = first[:, None] + (chances * drafting[:, None]).long()
    least = min(lags.least, lags.steps)
    drawn = torch.randint(least, lags.steps + 1, anchors.shape, generator=generator)
    follows = torch.rand(anchors.shape, generator=generator) < lags.streams
    lag = torch.where(follows, drawn, lags.steps).to(device)
    return Rollouts(anchors, lag, lags.steps)


def batch_loss(
    head: TrainableHead,
    batch: Batch,
    frozen: Frozen,
    rollouts: Rollouts | None,
    weights: LossWeights,
) -> tuple[Tensor, list[float]]:
    """Return the mean loss, and the mean acceptance rates of answered slots and of each step.

    Slots whose next token has no row in the head do not count.
    """
    known = torch.isin(batch.following, frozen.tokens)
    drafting = batch.drafting & known
    with torch.no_grad():
        judged = frozen.judged(batch.wanted[drafting])
    row_of = torch.full(drafting.shape, -1, device=drafting.device)
    row_of[drafting] = torch.arange(len(judged), device=drafting.device)

    def compare(guessed: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the mean acceptance of guesses ``[n, hidden]``."""
        loss, overlap = losses(frozen.drafted(guessed), judged[rows], weights)
        if weights.feature:
            wanted = batch.wanted[drafting][rows]
            loss = loss + weights.feature * feature_loss(guessed, wanted, head.feature_scale)
        return loss.sum(), overlap

    guessed, slots = head(batch.embedded, batch.features)
    total, overlap = compare(guessed[drafting], row_of[drafting])
    count = len(judged)
    rates = [float(overlap.mean())]
    if rollouts is None:
        return total / max(1, count), rates
    # A text's last slot is read again where a rollout leaves it.
    last = batch.embedded.shape[1] - 1
    for step, features in enumerate(unroll(head, batch.embedded, guessed, slots, rollouts), 1):
        places = rollouts.anchors + step
        rows = row_of.gather(1, places.clamp(max=last))
        rows = torch.where(places <= last, rows, -1)
        valid = rows >= 0
        if not bool(valid.any()):
            break
        loss, overlap = compare(features[valid], rows[valid])
        total = total + loss
        count += int(valid.sum())
        rates.append(float(overlap.mean()))
    return total / max(1, count), rates
