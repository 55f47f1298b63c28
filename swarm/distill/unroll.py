"""Training-time test with lag: the head goes on from its own features, as it will when it drafts.

A *rollout* starts behind an *anchor*, the last slot whose feature the target has answered. Its
slots read the text's tokens and the features that the head has guessed itself (Zhang et al. 2024,
"HASS", arXiv 2408.15766; Li et al. 2025, "EAGLE-3", arXiv 2503.01840, unroll from all slots at
once). In a stream of drafts, answers go on coming in while the head goes on from guesses, and keep
a *lag* behind it: then slot ``i`` sees the target's features up to slot ``i - lag``, and guessed
ones of the slots between. Many rollouts of many texts run side by side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.distill.trainable_head import Projected, TrainableHead


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Where rollouts start.

    Attributes:
        anchors: ``[texts, rollouts]``, the slots that they start behind.
        lags: the same shape: how many slots behind the newest one the answers are, once they are.
        steps: how many slots each has.
    """

    anchors: Tensor
    lags: Tensor
    steps: int


def answered(anchors: Tensor, lags: Tensor, step: int) -> Tensor:
    """Return the last slot with an answered feature that a rollout's slot sees, for each rollout.

    Args:
        step: of the slot ``anchors + step``; the first is 1.
    """
    return torch.maximum(anchors, anchors + step - lags)


def sees_answered(anchors: Tensor, lags: Tensor, step: int, slots: int) -> Tensor:
    """Return which answered slots a step's slots see.

    Returns:
        BoolTensor ``[texts, 1, rollouts, slots]``.
    """
    last = answered(anchors, lags, step)
    return (torch.arange(slots, device=anchors.device) <= last[..., None]).unsqueeze(1)


def sees_guessed(anchors: Tensor, lags: Tensor, step: int) -> Tensor:
    """Return which slots of its own rollout a step's slot sees.

    Those that are not answered for it, and itself.

    Returns:
        BoolTensor ``[texts, 1, rollouts, step]``; the slots of step 1, 2, ...
    """
    last = answered(anchors, lags, step)
    own = anchors[..., None] + torch.arange(1, step + 1, device=anchors.device)
    return (own > last[..., None]).unsqueeze(1)


def unroll(
    head: TrainableHead, embedded: Tensor, guessed: Tensor, slots: Projected, rollouts: Rollouts
) -> Iterator[Tensor]:
    """Yield the guessed features of each step, ``[texts, rollouts, hidden]``.

    A slot beyond the end of its text reads the text's last token; its guess means nothing.

    Args:
        embedded: ``[texts, slots, hidden]``, the embeddings of the slots' tokens.
        guessed: the same shape, what `TrainableHead.forward` returned for answered features.
        slots: their keys and values.
    """
    anchors = rollouts.anchors
    lags = rollouts.lags
    count = embedded.shape[1]
    features = at(guessed, anchors)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for step in range(1, rollouts.steps + 1):
        positions = anchors + step
        own = at(embedded, positions.clamp(max=count - 1))
        new = head.project(own, features, positions)
        keys.append(new.k)
        values.append(new.v)
        scale = head.shape.head_dim**-0.5
        far = (new.q @ slots.k.transpose(-1, -2)) * scale
        far = far.masked_fill(~sees_answered(anchors, lags, step, count), -torch.inf)
        own_keys = torch.stack(keys, -2)  # [texts, heads, rollouts, step, head_dim]
        near = (new.q.unsqueeze(-2) @ own_keys.transpose(-1, -2)).squeeze(-2) * scale
        near = near.masked_fill(~sees_guessed(anchors, lags, step), -torch.inf)
        weights = torch.cat((far, near), -1).float().softmax(-1).to(new.v.dtype)
        attended = weights[..., :count] @ slots.v
        own_values = torch.stack(values, -2)
        attended = attended + (weights[..., count:].unsqueeze(-2) @ own_values).squeeze(-2)
        features = head.finish(new.x, attended)
        yield features


def at(rows: Tensor, places: Tensor) -> Tensor:
    """Return the rows ``[texts, m, n]`` at the places ``[texts, m]`` of ``[texts, slots, n]``."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
