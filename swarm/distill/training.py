"""Training a head: passes over the texts for a given time, from one checkpoint to the next."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from swarm.distill.batch_loss import Lags, batch_loss, draw_rollouts
from swarm.distill.batches import LEAST_WRITTEN, Batch, batches
from swarm.distill.frozen import Frozen
from swarm.distill.loss import LossWeights
from swarm.distill.muon import Muon
from swarm.distill.texts import TargetText
from swarm.distill.trainable_head import TrainableHead
from swarm.errors import ConfigError
from swarm.model.device import has_bfloat16
from swarm.util.averages import ewma
from swarm.util.files import whole_file

WARMUP_SHARE = 0.02  # of the training
DECAY_SHARE = 0.6  # of the training
LEAST_BATCH = 512  # tokens
MOST_BATCH = 4096  # tokens; their logits take a gigabyte
MIXED_HIDDEN = 512  # smaller products take longer in bfloat16, with their conversions
SAVE_S = 60.0
FADE = 0.95  # what earlier steps count in the figures that are shown


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    Attributes:
        seconds: of training in all, those before an interruption included.
        passes: over the texts, at most.
        matrix_lr: of Muon, for the matrices.
        matrix_decay: of the matrices; see `Muon`. Without, long trainings diverge: nothing else
            bounds what enters the attention, which has no norm before it.
        lr: of AdamW, for the rest.
    """

    seconds: float
    passes: int = 12
    matrix_lr: float = 0.01
    matrix_decay: float = 0.25
    lr: float = 1e-3
    seed: int = 0
    lags: Lags = field(default_factory=Lags)
    weights: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        share: of the training, 0 to 1.
        loss: a fading mean.
        acceptance: the acceptance rate of drafts at lag 1, 2, ...; fading means.
    """

    share: float
    loss: float
    acceptance: tuple[float, ...]


class Training:
    """A head and the state of its optimisers.

    Attributes:
        seconds: of training so far.
        passes: over the texts so far, with a fraction.
    """

    def __init__(self, head: TrainableHead, frozen: Frozen, recipe: Recipe) -> None:
        self.head = head
        self.seconds = 0.0
        self.passes = 0.0
        self._frozen = frozen
        self._recipe = recipe
        matrices: list[Tensor] = [each for each in head.parameters() if each.ndim == 2]
        rest = [each for each in head.parameters() if each.ndim != 2]
        device = next(head.parameters()).device
        mixed = head.shape.hidden >= MIXED_HIDDEN and has_bfloat16(device)
        self._mixed = torch.autocast(device.type, torch.bfloat16, enabled=mixed)
        self._optimizers: list[Any] = [
            Muon(
                matrices,
                recipe.matrix_lr,
                decay=recipe.matrix_decay,
                dtype=torch.bfloat16 if mixed else torch.float32,
            ),
            torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self._peaks = (recipe.matrix_lr, recipe.lr)

    @property
    def share(self) -> float:
        """How much of the recipe is fulfilled, 0 to 1."""
        recipe = self._recipe
        return min(1.0, max(self.seconds / recipe.seconds, self.passes / recipe.passes))

    def run(
        self,
        texts: Sequence[TargetText],
        checkpoint: Path,
        show: Callable[[TrainingProgress], None],
    ) -> None:
        """Train until the recipe is fulfilled; save the state on the way, and in the end.

        Args:
            checkpoint: the file of the state.
        """
        usable = [text for text in texts if text.written >= LEAST_WRITTEN]
        if not usable:
            raise ConfigError("tokens", "the target has written nothing to learn from")
        whole = sum(len(text.tokens) for text in usable)
        batch_tokens = batch_tokens_for(self.head.shape.hidden)
        began = saved = time.monotonic()
        before = self.seconds
        shown: TrainingProgress | None = None
        while self.share < 1.0:
            generator = torch.Generator().manual_seed(self._recipe.seed + round(self.passes * 1e6))
            for group in batches(usable, batch_tokens, generator):
                loss, rates = self._step(group, generator)
                self.seconds = before + time.monotonic() - began
                self.passes += sum(len(text.tokens) for text in group) / whole
                shown = _faded(shown, self.share, loss, rates)
                show(shown)
                if time.monotonic() - saved >= SAVE_S:
                    self.save(checkpoint)
                    saved = time.monotonic()
                if self.share >= 1.0:
                    break
        self.save(checkpoint)

    def _step(
        self, group: Sequence[TargetText], generator: torch.Generator
    ) -> tuple[float, list[float]]:
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for each in optimizer.param_groups:
                each["lr"] = peak * max(learning_rate(self.share), 1e-3)
        batch = Batch.of(group, self._frozen)
        rollouts = draw_rollouts(batch.first, batch.end, self._recipe.lags, generator)
        with self._mixed:
            loss, rates = batch_loss(self.head, batch, self._frozen, rollouts, self._recipe.weights)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.detach()), rates

    def save(self, checkpoint: Path) -> None:
        """Write the state; the file is there whole or not at all."""
        state = {
            "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "seconds": self.seconds,
            "passes": self.passes,
        }
        with whole_file(checkpoint) as unfinished:
            torch.save(state, unfinished)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a state that `save` wrote.

        Raises:
            ConfigError: if the file is damaged, or the state of another head.
        """
        try:
            state = torch.load(checkpoint, weights_only=True, map_location="cpu")
            self.head.load_state_dict(state["head"])
            for optimizer, stored in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
            self.seconds = float(state["seconds"])
            self.passes = float(state["passes"])
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError):
            problem = f"{checkpoint} is damaged, or of another head; delete it to begin anew"
            raise ConfigError("out", problem) from None


def batch_tokens_for(hidden: int) -> int:
    """Return the size of batches for a head of this width.

    Muon orthogonalises a matrix of ``hidden`` rows and columns in 30 x hidden^3 operations, however
    large the batch; a token takes 12 x hidden^2, rollout included. So about as much goes into each.
    """
    return min(max(LEAST_BATCH, 2 * hidden), MOST_BATCH)


def learning_rate(share: float) -> float:
    """Return the share of the peak learning rate: warm-up, plateau, linear fall to zero.

    Args:
        share: of the training, 0 to 1.
    """
    return max(0.0, min(1.0, share / WARMUP_SHARE, (1.0 - share) / DECAY_SHARE))


def _faded(
    before: TrainingProgress | None, share: float, loss: float, rates: Sequence[float]
) -> TrainingProgress:
    if before is None:
        return TrainingProgress(share, loss, tuple(rates))
    known = [*before.acceptance, *rates[len(before.acceptance) :]]
    faded = [ewma(old, new, FADE) for old, new in zip(known, rates, strict=False)]
    return TrainingProgress(share, ewma(before.loss, loss, FADE), (*faded, *known[len(faded) :]))
