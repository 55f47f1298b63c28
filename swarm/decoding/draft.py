"""Draft models: a small causal language model that guesses what the target will say."""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import DynamicCache, PreTrainedModel

from swarm.decoding.sampling import Sampling


class Drafter(Protocol):
    """Guesses the continuation of a sequence."""

    def draft(self, sequence: Sequence[int], count: int) -> list[int]:
        """At most ``count`` tokens that may follow ``sequence``. Called from one thread at a time."""
        ...


class ModelDrafter:
    """Drafts with a Hugging Face model that shares the target's vocabulary, by the target's own sampling noise.

    Keeps the keys and values of the sequence it saw last, so that a call costs one forward pass for
    the tokens that are new, and one for every further drafted token.
    """

    def __init__(
        self, model: PreTrainedModel, sampling: Sampling, vocab_size: int, stop_ids: frozenset[int] = frozenset()
    ) -> None:
        self.model, self.sampling, self.vocab_size, self.stop_ids = model, sampling, vocab_size, stop_ids
        self._cache = DynamicCache()  # without a config no layer forgets, so that every layer can be rolled back
        self._seen: list[int] = []

    @torch.inference_mode()
    def draft(self, sequence: Sequence[int], count: int) -> list[int]:
        drafted: list[int] = []
        while len(drafted) < count and not (drafted and drafted[-1] in self.stop_ids):
            drafted += self._choose([*sequence, *drafted])
        return drafted

    def _choose(self, sequence: list[int]) -> list[int]:
        keep = common_prefix(self._seen, sequence[:-1])
        if keep < len(self._seen):
            self._cache.crop(keep - len(self._seen))  # a negative count: drop so many from the end
        new = torch.tensor([sequence[keep:]], device=self.model.device)
        logits = self.model(input_ids=new, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits
        self._seen = sequence
        return self.sampling.choose(logits[0, :, : self.vocab_size], len(sequence))


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    length = min(len(a), len(b))
    return next((i for i in range(length) if a[i] != b[i]), length)
