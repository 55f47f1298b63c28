"""Draft models: a small causal language model that guesses what the target will say."""

import sys
from collections.abc import Sequence
from itertools import compress, count
from operator import ne

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.vocabulary import Vocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping

CHOICES = 4  # of the draft at a place that are told; plans take fewer


class ModelDrafter(Drafter):
    """Drafts with a Hugging Face model, by the target's own shaping and sampling noise, token for
    token.

    Keeps the keys and values of the sequence it saw last, so that a call costs one forward pass for
    the tokens that are new, and one for every further drafted token.

    Args:
        vocabulary: between the tokens of the model and those of the target, in which everything
            else here is.
        stop_ids: tokens of the target that end a text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: Sampling,
        vocabulary: Vocabulary,
        shaping: Shaping = NO_SHAPING,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.model, self.sampling, self.vocabulary = model, sampling, vocabulary
        self.shaping, self.stop_ids = shaping, stop_ids
        # without a config no layer forgets, so that every layer can be rolled back
        self._cache = DynamicCache()
        self._seen: list[int] = []  # what the cache holds, in the draft's own tokens
        self._known = model.get_input_embeddings().weight.shape[0]
        self._context = getattr(model.config, "max_position_embeddings", None) or sys.maxsize

    @torch.inference_mode()
    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`.

        Drafts nothing beyond the draft model's own context (in its own tokens), or after a token it
        has no embedding of (a target's vocabulary may be padded further), and nothing behind a stop
        token.
        """
        ids = [*self.vocabulary.opening, *self.vocabulary.encode(sequence)]
        drafted: list[Drafted] = []
        if not ids or max(ids) >= self._known:
            return drafted
        # the last token is read again: its answer is not kept
        keep = common_prefix(self._seen, ids[:-1])
        self._rewind(keep)
        unread, history = ids[keep:], list(sequence)
        for _ in range(min(count, self._context - len(ids))):
            logits = self.shaping.apply(self.vocabulary.project(self._read(unread)), history)
            [((token, sure), *others)] = self.sampling.rank(logits, [len(history)], CHOICES)
            drafted.append(Drafted(token, logits[0], sure, tuple(others)))
            if token in self.stop_ids:
                break
            history.append(token)
            unread = self.vocabulary.encode([token])
        return drafted

    def _read(self, ids: list[int]) -> Tensor:
        """Lengthen the cache by ``ids``; returns ``[1, draft head]``, what the model says to the
        last one."""
        batch = torch.tensor([ids], device=self.model.device)
        logits: Tensor = self.model(
            input_ids=batch, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        ).logits
        self._seen += ids
        return logits[0]

    def _rewind(self, length: int) -> None:
        if length < len(self._seen):
            # a negative count: drop so many from the end
            self._cache.crop(length - len(self._seen))
            del self._seen[length:]


def common_prefix(a: list[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    # No Python runs for each token: a drafter asks this of the whole sequence in every call, mostly
    # to go on.
    if a == list(b[: len(a)]):
        return len(a)
    return next(compress(count(), map(ne, a, b)), min(len(a), len(b)))
