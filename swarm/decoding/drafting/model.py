"""Draft models: a small causal language model guesses the target's next tokens."""

import sys
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.prefix import common_prefix


class LineReader(Protocol):
    """A language model that reads tokens one after another, and keeps what it has read."""

    def read(self, ids: list[int]) -> Tensor:
        """Read tokens behind those that it holds; return the last one's logits.

        ``[1, draft head]`` float32, on the CPU.
        """
        ...

    def rewind(self, length: int) -> int:
        """Keep at most the first ``length`` tokens; return how many are kept."""
        ...


class ModelDrafter(Drafter):
    """Drafts with a Hugging Face model, with the target's own shaping and sampling noise.

    Keeps the keys and values of the last sequence. So a call costs one forward pass for all new
    tokens, and one for every further drafted token.

    Args:
        chooser: its vocabulary translates between the tokens of the model and those of the target;
            all other token ids here are the target's.
        reader: of the model, with its own cache; by default one that keeps keys and values.
    """

    def __init__(
        self, model: PreTrainedModel, chooser: Chooser, reader: LineReader | None = None
    ) -> None:
        self.model = model
        self.chooser = chooser
        self._reader = reader if reader is not None else CachingReader(model)
        self._seen: list[int] = []  # the tokens in the cache, the draft's own
        self._known = model.get_input_embeddings().weight.shape[0]
        self._context = getattr(model.config, "max_position_embeddings", None) or sys.maxsize

    @torch.inference_mode()
    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`.

        Drafts nothing beyond the draft model's context (in its own tokens), nothing behind a stop
        token, and nothing behind a token that it has no embedding of (a target's vocabulary may be
        padded further).
        """
        vocabulary = self.chooser.vocabulary
        ids = [*vocabulary.opening, *vocabulary.encode(sequence)]
        drafted: list[Drafted] = []
        if not ids or max(ids) >= self._known:
            return drafted
        # The last token's logits are not kept.
        keep = self._reader.rewind(common_prefix(self._seen, ids[:-1]))
        del self._seen[keep:]
        unread = ids[keep:]
        path: list[int] = []
        for _ in range(min(count, self._context - len(ids))):
            [guess] = self.chooser.choose(self._read(unread), sequence, [path])
            drafted.append(guess)
            if guess.token in self.chooser.stop_ids:
                break
            path.append(guess.token)
            unread = vocabulary.encode([guess.token])
        return drafted

    def _read(self, ids: list[int]) -> Tensor:
        """Read ``ids``; return the last one's logits, ``[1, draft head]``."""
        logits = self._reader.read(ids)
        self._seen += ids
        return logits


class CachingReader(LineReader):
    """A model with keys and values of all that it has read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        # Without a config no layer drops old tokens: every layer can be rolled back.
        self._cache = DynamicCache()
        self._length = 0

    def read(self, ids: list[int]) -> Tensor:
        """See `LineReader.read`."""
        batch = torch.tensor([ids], device=self._model.device)
        logits: Tensor = self._model(
            input_ids=batch, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        ).logits
        self._length += len(ids)
        return logits[0].float().cpu()

    def rewind(self, length: int) -> int:
        """See `LineReader.rewind`."""
        if length < self._length:
            self._cache.crop(length - self._length)  # a negative count drops from the end
            self._length = length
        return length
