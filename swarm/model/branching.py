"""A whole model that reads a tree of tokens, in one forward for all of its branches."""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swarm.decoding.drafting.tree import TreeReader
from swarm.model.attention import PACKED, running
from swarm.model.cache import KVCache, PackedCache
from swarm.model.device import upload
from swarm.model.masks import NotPackable, View
from swarm.model.span import CHECK_TOKENS, ROUGH_TOLERANCE, TOLERANCE, turns_by_length
from swarm.wire.messages import MAX_SESSION_TOKENS
from swarm.wire.token_tree import MAX_TAIL, Placement, TokenTree


class BranchingModel:
    """Shares the weights of a causal language model, which stays as it is, and gives each token of
    a tree the logits that its own path alone gives. Make one with `BranchingModel.of`; to be used
    from one thread at a time.

    A peer's `Span` and a client's `Head` do the same in two forwards, because the internet lies
    between them. Where the whole model is at hand, one takes a fifth less time.

    Attributes:
        known: how many token ids it has an embedding of.
        context: positions that it was made for.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        # Only the modules are copied: what is in the memo counts as copied already.
        self._model = copy.deepcopy(
            model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        )
        self._model.config._attn_implementation = PACKED
        self.device = model.device
        self.known: int = model.get_input_embeddings().weight.shape[0]
        self.context: int = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        self._layers: int = model.config.get_text_config(decoder=True).num_hidden_layers

    @classmethod
    def of(cls, model: PreTrainedModel) -> "BranchingModel | None":
        """None for a model that cannot do it: see `Span.branches`."""
        if turns_by_length(model.config):
            return None
        try:
            branching = cls(model)
            return branching if branching._agrees_with(model) else None
        except (NotPackable, AttributeError, IndexError, TypeError, ValueError, RuntimeError):
            return None

    def reader(self) -> TreeReader:
        """With a cache of its own, which holds nothing yet."""
        return _Reader(self, KVCache(0, self._layers, MAX_SESSION_TOKENS + MAX_TAIL))

    @torch.inference_mode()
    def read(
        self, cache: KVCache, tokens: Sequence[int], placement: Placement, rows: Sequence[int]
    ) -> Tensor:
        """Read tokens into the cache, where the placement says; returns ``[len(rows), head]``, what
        the model says to those with these indices. Raises SpanError for a placement that does not
        fit the cache."""
        count = len(tokens)
        # as nearly always: then nothing need be gathered
        last = list(rows) == list(range(count - len(rows), count))
        cache.place(placement)
        packed = PackedCache([cache], [View.of(placement, count, self.device)])
        with running(packed):
            logits: Tensor = self._model(
                input_ids=upload(torch.tensor([tokens]), self.device),
                position_ids=upload(torch.tensor([placement.positions]), self.device),
                past_key_values=packed,
                use_cache=True,
                logits_to_keep=len(rows) if last else upload(torch.tensor(rows), self.device),
            ).logits
        cache.advance(count)
        return logits[0]

    @torch.inference_mode()
    def _agrees_with(self, model: PreTrainedModel) -> bool:
        """Whether made-up tokens, read in two pieces and with a branch between them that loses, get
        the logits that the model gives in one piece."""
        tokens = torch.randint(
            self.known, (CHECK_TOKENS,), generator=torch.Generator().manual_seed(0)
        ).tolist()
        expected = (
            model(input_ids=torch.tensor([tokens], device=self.device), use_cache=False)
            .logits[0]
            .float()
        )
        reader, stream, cut = self.reader(), TokenTree(), CHECK_TOKENS * 2 // 3
        start, rest = tokens[:cut], [tokens[0], *tokens[cut:]]
        placed = stream.admit(0, 0, 1, len(start))
        branched = stream.admit(0, cut, cut + 1, len(rest), (1, 2, *(1,) * (len(rest) - 2)))
        assert placed is not None
        assert branched is not None
        first = reader.read(start, placed, range(len(start)))
        second = reader.read(rest, branched, range(1, len(rest)))
        error = (torch.cat([first, second]).float() - expected).norm() / expected.norm()
        return bool(error <= (TOLERANCE if model.dtype == torch.float32 else ROUGH_TOLERANCE))


@dataclass(frozen=True, eq=False)
class _Reader(TreeReader):
    """A branching model, and the cache of one generation."""

    model: BranchingModel
    cache: KVCache

    @property
    def known(self) -> int:
        return self.model.known

    @property
    def context(self) -> int:
        return self.model.context

    def read(self, tokens: Sequence[int], placement: Placement, rows: Sequence[int]) -> Tensor:
        """See `BranchingModel.read`."""
        return self.model.read(self.cache, tokens, placement, rows)
