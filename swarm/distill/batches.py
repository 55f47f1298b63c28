"""Batches of texts, with what a head learns at each slot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.distill.frozen import Frozen
from swarm.distill.texts import TargetText

POOL = 16  # batches whose texts are sorted by length together
LEAST_WRITTEN = 3  # tokens of a text: the first slot that drafts needs two behind it


@dataclass(frozen=True, eq=False)
class Batch:
    """Some texts, filled up to equal length.

    Slot ``i`` reads token ``i + 1`` and the feature of token ``i``, and guesses the feature of
    token ``i + 1``.

    Attributes:
        embedded: ``[texts, slots, hidden]`` float32.
        features: the same, of the tokens ``i``.
        wanted: the same, of the tokens ``i + 1``.
        following: LongTensor ``[texts, slots]``, the tokens ``i + 2``.
        first: LongTensor ``[texts]``, the first slot that drafts.
        end: the same, behind the last one.
    """

    embedded: Tensor
    features: Tensor
    wanted: Tensor
    following: Tensor
    first: Tensor
    end: Tensor

    @classmethod
    def of(cls, texts: Sequence[TargetText], frozen: Frozen) -> "Batch":
        """Return a batch of texts that all have `LEAST_WRITTEN` tokens of the target."""
        longest = max(len(text.tokens) for text in texts)
        tokens = torch.zeros(len(texts), longest, dtype=torch.long)
        states = torch.zeros(len(texts), longest, texts[0].states.shape[1])
        for row, text in enumerate(texts):
            tokens[row, : len(text.tokens)] = text.tokens
            states[row, : len(text.tokens)] = text.states
        device = frozen.lm_head.device
        tokens = tokens.to(device)
        features = frozen.features(states)
        return cls(
            embedded=frozen.embedded(tokens[:, 1:-1]),
            features=features[:, :-2],
            wanted=features[:, 1:-1],
            following=tokens[:, 2:],
            first=torch.tensor([max(text.prompt - 1, 0) for text in texts], device=device),
            end=torch.tensor([len(text.tokens) - 2 for text in texts], device=device),
        )

    @property
    def drafting(self) -> Tensor:
        """Which slots draft a token that the target wrote, BoolTensor ``[texts, slots]``."""
        slots = torch.arange(self.embedded.shape[1], device=self.embedded.device)
        return (slots >= self.first[:, None]) & (slots < self.end[:, None])


def batches(
    texts: Sequence[TargetText], tokens: int, generator: torch.Generator
) -> Iterator[list[TargetText]]:
    """Yield all texts once, in random order, those of like length together.

    Args:
        tokens: of a batch at most, with its padding; a longer text is a batch of its own.
    """
    order = torch.randperm(len(texts), generator=generator).tolist()
    mean = sum(len(text.tokens) for text in texts) / max(1, len(texts))
    size = max(1, round(POOL * tokens / max(1.0, mean)))
    for start in range(0, len(order), size):
        groups: list[list[TargetText]] = []
        pool = [texts[at] for at in order[start : start + size]]
        for text in sorted(pool, key=lambda text: len(text.tokens)):
            if not groups or (len(groups[-1]) + 1) * len(text.tokens) > tokens:
                groups.append([])
            groups[-1].append(text)
        for at in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[at]
