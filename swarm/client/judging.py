"""From the chain's hidden states to choices: the work of the judging thread."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swarm.decoding.certificate import Choosing, certify
from swarm.model.head import Head

ROWS_AT_ONCE = 16  # a frame while windows are in flight; more would take much memory at once


@dataclass(frozen=True)
class Judged:
    """What was made of the target's answers at ``n`` places.

    Attributes:
        logits: ``[vocabulary]`` float32 for each place; None where its choice alone is known.
        choices: the token that the target chooses behind each place, or None.
        refined: how many exact logits each of the choices took.
        normed: ``[n, hidden]`` behind the final norm, if that was asked for.
    """

    logits: tuple[Tensor | None, ...]
    choices: tuple[int | None, ...]
    refined: tuple[int, ...]
    normed: Tensor | None = None


def judge(head: Head, hidden: Tensor, choosing: Choosing | None, normed: bool = False) -> Judged:
    """Make choices of hidden states where choices suffice, and logits where they do not.

    Choices take a quarter of the time, if the head has bounds. They are those of its logits.

    Args:
        hidden: ``[n, hidden]``, answers of the chain in any dtype.
        choosing: how to choose at each place; None if its logits are needed.
    """
    behind_norm = head.normed(hidden) if normed else None
    if choosing is None or head.rounded is None:
        every = (None,) * len(hidden)
        return Judged(tuple(head.logits(hidden)), every, (), behind_norm)
    parts = [_choose(head, *part) for part in _parts(hidden, choosing)]
    return Judged(
        sum((part.logits for part in parts), ()),
        sum((part.choices for part in parts), ()),
        sum((part.refined for part in parts), ()),
        behind_norm,
    )


def _parts(hidden: Tensor, choosing: Choosing) -> Iterator[tuple[Tensor, Choosing]]:
    for start in range(0, len(hidden), ROWS_AT_ONCE):
        end = start + ROWS_AT_ONCE
        yield hidden[start:end], replace(choosing, paths=choosing.paths[start:end])


def _choose(head: Head, hidden: Tensor, choosing: Choosing) -> Judged:
    """Choose by bounds; give logits where these do not suffice."""
    bounds, refine = head.bounds(hidden)
    certificate = certify(bounds, choosing, refine)
    logits: list[Tensor | None] = [None] * len(hidden)
    unsure = [row for row, choice in enumerate(certificate.choices) if choice is None]
    if unsure:
        for row, exact in zip(unsure, head.logits(hidden[torch.tensor(unsure)]), strict=True):
            logits[row] = exact
    return Judged(tuple(logits), tuple(certificate.choices), tuple(certificate.refined))
