"""How often a head's drafts are right on texts that it did not learn from, by lag."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swarm.distill.batches import Batch, batches
from swarm.distill.frozen import Frozen
from swarm.distill.texts import TargetText
from swarm.distill.trainable_head import TrainableHead
from swarm.distill.unroll import Rollouts, unroll
from swarm.errors import ConfigError
from swarm.model.branching import context_of
from swarm.model.drafts.draft import AS_IT_IS
from swarm.model.drafts.loading import load_draft

EVAL_TOKENS = 2048  # of a batch


@dataclass(frozen=True)
class ByLag:
    """The share of right drafts, by how many tokens they are behind the last answered one.

    Attributes:
        reached: the first is how many runs of drafts were looked at; the next ones, in how many of
            them all drafts up to this lag were right.
    """

    reached: tuple[int, ...]

    @classmethod
    def of(cls, right: Tensor) -> "ByLag":
        """Count runs: BoolTensor ``[runs, lags]``."""
        kept = right.long().cumprod(-1).sum(0).tolist()
        return cls((len(right), *kept))

    def __add__(self, other: "ByLag") -> "ByLag":
        return ByLag(tuple(a + b for a, b in zip(self.reached, other.reached, strict=True)))

    @property
    def chances(self) -> tuple[float, ...]:
        """The chance that the draft at lag 1, 2, ... is right if all before it were."""
        pairs = zip(self.reached, self.reached[1:])  # noqa: B905
        return tuple(right / before if before else 0.0 for before, right in pairs)

    @property
    def run(self) -> float:
        """The mean number of right drafts before the first wrong one, of as many as there are."""
        return sum(self.reached[1:]) / max(1, self.reached[0])

    @property
    def alpha(self) -> float:
        """The constant chance that would give a run of this length: run / (1 + run)."""
        return self.run / (1 + self.run)


@torch.inference_mode()
def measure(head: TrainableHead, texts: Sequence[TargetText], frozen: Frozen, lags: int) -> ByLag:
    """Return how a head drafts behind every answered slot, in greedy texts."""
    head.eval()
    counts = ByLag((0,) * (lags + 1))
    generator = torch.Generator().manual_seed(0)
    for group in batches(texts, EVAL_TOKENS, generator):
        counts += _measured(head, Batch.of(group, frozen), frozen, lags)
    head.train()
    return counts


def _measured(head: TrainableHead, batch: Batch, frozen: Frozen, lags: int) -> ByLag:
    guessed, slots = head(batch.embedded, batch.features)
    texts, count = guessed.shape[:2]
    anchors = torch.arange(count, device=guessed.device).expand(texts, count)
    rollouts = Rollouts(anchors, torch.full_like(anchors, lags), lags - 1)
    rows = torch.arange(count, device=guessed.device)
    right = []
    steps = [guessed, *unroll(head, batch.embedded, guessed, slots, rollouts)]
    for step, features in enumerate(steps):
        tokens = frozen.tokens[frozen.drafted(features).argmax(-1)]
        wanted = batch.following[:, (rows + step).clamp(max=count - 1)]
        right.append(tokens == wanted)
    # Only runs that end within the text.
    whole = batch.drafting & (anchors + lags <= batch.end[:, None])
    return ByLag.of(torch.stack(right, -1)[whole])


@torch.inference_mode()
def measure_draft(
    name: str, texts: Sequence[TargetText], lags: int, vocab: int
) -> tuple[ByLag, int]:
    """Return the same for an independent draft model, and how many weights it reads a token.

    Its chances do not depend on the lag: it reads the tokens alone. Of texts that are longer than
    its context, it reads the beginning.

    Args:
        vocab: tokens that the target has.

    Raises:
        ConfigError: for a draft with another vocabulary.
        SwarmError: what `load_draft` raises.
    """
    loaded = load_draft(name, AS_IT_IS)
    if loaded.vocab != vocab:
        problem = f"{name} has another vocabulary than the target, and cannot be compared here"
        raise ConfigError("compare", problem)
    counts = ByLag((0,) * (lags + 1))
    for text in texts:
        tokens = text.tokens[: context_of(loaded.model)]
        choices = loaded.model(tokens[None]).logits[0].argmax(-1)
        right = choices[1:-1] == tokens[2:]
        runs = right[max(text.prompt - 1, 0) :]
        if len(runs) >= lags:
            counts += ByLag.of(runs.unfold(0, lags, 1))
    return counts, loaded.weights


@dataclass(frozen=True)
class Report:
    """What came out of it.

    Attributes:
        head: how it drafts on texts that were held out.
        head_weights: that it reads for a drafted token.
        texts: that were written, and those held out among them.
        written: tokens that the target wrote in them.
        passes: of the training over the texts.
        draft: how a draft model drafts on the same texts; None if none was compared.
        draft_weights: that it reads for a drafted token.
    """

    head: ByLag
    head_weights: int
    texts: int
    written: int
    passes: float
    draft: ByLag | None = None
    draft_weights: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        drafts = {"head": (self.head, self.head_weights)}
        if self.draft is not None:
            drafts["draft"] = (self.draft, self.draft_weights)
        return {
            "texts": self.texts,
            "tokens": self.written,
            "passes": self.passes,
            **{
                name: {
                    "weights": weights,
                    "runs": by_lag.reached[0],
                    "chances": by_lag.chances,
                    "alpha": by_lag.alpha,
                }
                for name, (by_lag, weights) in drafts.items()
            },
        }
