"""The two ends of the target that a head shares with it, and that do not learn."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding

from swarm.distill.texts import TargetText
from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.partial import build
from swarm.model.rehearsal import rehearsed


@dataclass(frozen=True, eq=False)
class Frozen:
    """Embedding, final norm and LM head of a target.

    Attributes:
        head: which gives the final norm.
        embedding: ``[vocabulary, hidden]``.
        lm_head: ``[rows, hidden]``.
        tokens: LongTensor ``[rows]``, which tokens its rows are, in ascending order.
        scale: by which the target multiplies what its LM head gives.
        softcap: the bound of the target's logits; None if there is none.
    """

    head: Head
    embedding: Tensor
    lm_head: Tensor
    tokens: Tensor
    scale: float
    softcap: float | None

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, dtype: torch.dtype, device: str | torch.device
    ) -> "Frozen":
        """Read both ends of a target; no layer is read.

        Raises:
            UnsupportedModel: also if its LM head is no matrix over its states.
        """
        anatomy = rehearsed(checkpoint)
        tied = () if anatomy.tied is None else (anatomy.tied,)
        modules = dict.fromkeys((*anatomy.embedding, *anatomy.head, *tied))
        model = build(
            checkpoint, anatomy, layers=range(0), modules=modules, dtype=dtype, device=device
        )
        rows = model.get_output_embeddings().weight.data
        columns = model.get_input_embeddings().weight.data
        hidden = checkpoint.hidden_size
        if rows.shape[1] != hidden or columns.shape[1] != hidden:
            why = "a head in EAGLE's form needs embeddings as wide as the hidden states"
            raise UnsupportedModel(checkpoint.name, why)
        softcap = getattr(checkpoint.config, "final_logit_softcapping", None)
        tokens = torch.arange(len(rows), device=rows.device)
        head = Head(model, anatomy)
        return cls(head, columns, rows, tokens, _scale(head, rows, softcap), softcap)

    def keeping(self, tokens: Collection[int]) -> "Frozen":
        """Return the same with the rows of these tokens alone."""
        kept = torch.tensor(sorted(tokens), device=self.tokens.device)
        return replace(self, lm_head=self.lm_head[kept], tokens=kept)

    def features(self, states: Tensor) -> Tensor:
        """Apply the final norm to raw states ``[..., hidden]``; float32."""
        normed = self.head.normed(states.flatten(0, -2))
        return normed.view(states.shape).to(self.lm_head.device)

    def embedded(self, tokens: Tensor) -> Tensor:
        """Return the embedding's rows of tokens ``[...]`` as float32 ``[..., hidden]``."""
        return embedding(tokens, self.embedding).float()

    def drafted(self, features: Tensor) -> Tensor:
        """Return a head's logits of its rows, ``[..., rows]`` float32, given its guesses."""
        return (features.to(self.lm_head.dtype) @ self.lm_head.T).float()

    def judged(self, features: Tensor) -> Tensor:
        """Return the target's logits of the rows, ``[..., rows]`` float32, given true features."""
        logits = self.drafted(features) * self.scale
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def frequent_tokens(texts: Iterable[TargetText], count: int, always: Iterable[int]) -> list[int]:
    """Return the ``count`` tokens that targets have written most often, and some besides.

    (Zhao et al. 2025, "FR-Spec", arXiv 2502.14856.)
    """
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(text.tokens[text.prompt :].tolist())
    return sorted({*always, *(token for token, _ in counts.most_common(count))})


def _scale(head: Head, lm_head: Tensor, softcap: float | None) -> float:
    """Return by what a model multiplies the product of its LM head, before it caps it."""
    states = torch.randn(4, lm_head.shape[1], generator=torch.Generator().manual_seed(0))
    given = head.logits(states)
    if softcap:
        given = softcap * torch.atanh((given / softcap).clamp(-1 + 1e-6, 1 - 1e-6))
    plain = (head.normed(states).to(lm_head) @ lm_head.T).float().cpu()
    return float((given * plain).sum() / (plain * plain).sum())
