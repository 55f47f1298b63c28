"""Draft models: a small causal language model that guesses what the target will say."""

import sys
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
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
        self._seen: list[int] = []  # the sequence that the cache holds
        self._known = model.get_input_embeddings().weight.shape[0]
        self._context = getattr(model.config, "max_position_embeddings", None) or sys.maxsize

    @torch.inference_mode()
    def draft(self, sequence: Sequence[int], count: int) -> list[int]:
        """See `Drafter.draft`. Drafts nothing beyond the draft model's own context, or after a token it has no
        embedding of (a target's vocabulary may be padded further), and nothing behind a stop token."""
        keep = common_prefix(self._seen, sequence[:-1])  # the last token is read again: its answer is not kept
        unread = list(sequence[keep:])
        drafted: list[int] = []
        if max(unread) >= self._known:
            return drafted
        self._rewind(keep)
        for position in range(len(sequence), min(len(sequence) + count, self._context)):
            drafted += self.sampling.choose(self._read(unread), position)
            if drafted[-1] in self.stop_ids:
                break
            unread = drafted[-1:]
        return drafted

    def _read(self, tokens: list[int]) -> Tensor:
        """Lengthen the cache by ``tokens``; returns ``[1, vocabulary]``, what the model says to the last one."""
        ids = torch.tensor([tokens], device=self.model.device)
        logits: Tensor = self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits
        self._seen += tokens
        return logits[0, :, : self.vocab_size]

    def _rewind(self, length: int) -> None:
        if length < len(self._seen):
            self._cache.crop(length - len(self._seen))  # a negative count: drop so many from the end
            del self._seen[length:]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    length = min(len(a), len(b))
    return next((i for i in range(length) if a[i] != b[i]), length)
