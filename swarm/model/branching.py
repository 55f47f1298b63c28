"""A whole model that reads a tree of tokens, in one forward for all of its branches."""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swarm.decoding.drafting.tree import TreeReader
from swarm.model.anatomy import layers_of
from swarm.model.attention import PACKED, running
from swarm.model.cache import KVCache, PackedCache
from swarm.model.device import upload
from swarm.model.forward_watch import ForwardWatch, watched
from swarm.model.latent import hand_on_latents
from swarm.model.masks import AttentionView, NotPackable
from swarm.model.self_check import CHECK_TOKENS, ROUGH_TOLERANCE, TOLERANCE, turns_by_length
from swarm.model.work import Work
from swarm.model.wrapping import text_of
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.token_tree import MAX_TAIL, Placement, TokenTree


def context_of(model: PreTrainedModel) -> int:
    """Return the positions that a model was made for."""
    return getattr(text_of(model.config), "max_position_embeddings", None) or sys.maxsize


class BranchingModel:
    """Gives each token of a tree the logits that its own path alone gives.

    Shares the weights of a causal language model, which stays unchanged. Make one with
    `BranchingModel.of`; use it from one thread at a time.

    A peer's `Span` and a client's `Head` do the same in two forwards, because the internet lies
    between them. With the whole model at hand, one forward takes a fifth less time.

    Attributes:
        known: how many token ids the model has an embedding of.
        context: the positions that the model was made for.
        watch: is told of each forward and of its layers, if there is one.
        cache_dtype: of keys and values; None for that in which they are computed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        gathers: bool = False,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """`gathers`: see `PackedCache`."""
        self._gathers = gathers
        self.cache_dtype = cache_dtype
        # Copies only the modules: deepcopy takes the tensors in the memo for copied already.
        tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self._model = copy.deepcopy(model, tensors)
        self._model.config._attn_implementation = PACKED
        hand_on_latents(self._model, PACKED)
        self.device = model.device
        self.known: int = model.get_input_embeddings().weight.shape[0]
        self.context = context_of(model)
        self._layers: int = text_of(model.config).num_hidden_layers
        self.watch: ForwardWatch | None = None
        for module in self._model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self._layers:
                for layer in module:
                    layer.register_forward_pre_hook(self._before_layer)

    @classmethod
    def of(
        cls, model: PreTrainedModel, cache_dtype: torch.dtype | None = None
    ) -> "BranchingModel | None":
        """Return a branching model, or None for a model that cannot branch: see `Span.branches`."""
        if turns_by_length(model.config):
            return None
        for gathers in (False, True):
            try:
                branching = cls(model, gathers, cache_dtype)
                if branching._agrees_with(model):
                    return branching
            except (NotPackable, AttributeError, IndexError, TypeError, ValueError, RuntimeError):
                continue
        return None

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, for hooks."""
        return layers_of(self._model)

    def reader(self) -> TreeReader:
        """Return a reader with its own, empty cache."""
        return _Reader(self, self.new_cache())

    def new_cache(self) -> KVCache:
        """Return an empty cache of one text."""
        return KVCache(0, self._layers, MAX_SESSION_TOKENS + MAX_TAIL, self.cache_dtype)

    def read(
        self, cache: KVCache, tokens: Sequence[int], placement: Placement, rows: Sequence[int]
    ) -> Tensor:
        """Read tokens into the rows of ``placement``.

        Args:
            rows: indices of the tokens whose logits are returned.

        Returns:
            ``[len(rows), head]`` float32, on the CPU.

        Raises:
            SpanError: for a placement that does not fit the cache.
        """
        return self._read([Work(cache, torch.tensor(tokens), placement)], rows)

    def read_together(self, batch: Sequence[Work]) -> Tensor:
        """Read tokens of several texts in one forward, each text with its own cache.

        Returns:
            The logits behind the last token of each, ``[len(batch), head]`` float32, on the CPU.

        Raises:
            SpanError: for a placement that does not fit its cache.
        """
        counts = [len(work.inputs) for work in batch]
        return self._read(batch, [end - 1 for end in accumulate(counts)])

    @torch.inference_mode()
    def _read(self, batch: Sequence[Work], rows: Sequence[int]) -> Tensor:
        for work in batch:
            work.cache.place(work.placement)
        views = [AttentionView.of(work.placement, len(work.inputs), self.device) for work in batch]
        packed = PackedCache([work.cache for work in batch], views, self._gathers)
        tokens = torch.cat([work.inputs for work in batch])
        positions = [each for work in batch for each in work.placement.positions]
        # Nearly always true: then no rows have to be gathered.
        last = list(rows) == list(range(len(tokens) - len(rows), len(tokens)))
        with running(packed), watched(self.watch):
            logits: Tensor = self._model(
                input_ids=upload(tokens[None], self.device),
                position_ids=upload(torch.tensor([positions]), self.device),
                past_key_values=packed,
                use_cache=True,
                logits_to_keep=len(rows) if last else upload(torch.tensor(rows), self.device),
            ).logits
        for work in batch:
            work.cache.advance(len(work.inputs))
        return logits[0].float().cpu()

    def _before_layer(self, *_: object) -> None:
        if self.watch is not None:
            self.watch.layer()

    @torch.inference_mode()
    def _agrees_with(self, model: PreTrainedModel) -> bool:
        """Return whether random tokens get the logits that the model gives in one piece.

        They are read in two pieces, with a branch between them that the rest does not follow.
        """
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.known, (CHECK_TOKENS,), generator=generator).tolist()
        ids = torch.tensor([tokens], device=self.device)
        expected = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
        reader = self.reader()
        tree = TokenTree()
        cut = CHECK_TOKENS * 2 // 3
        start = tokens[:cut]
        rest = [tokens[0], *tokens[cut:]]
        placed = tree.admit(0, 0, 1, len(start))
        branched = tree.admit(0, cut, cut + 1, len(rest), (1, 2, *(1,) * (len(rest) - 2)))
        assert placed is not None
        assert branched is not None
        first = reader.read(start, placed, range(len(start)))
        second = reader.read(rest, branched, range(1, len(rest)))
        error = (torch.cat([first, second]) - expected).norm() / expected.norm()
        precise = {model.dtype, self.cache_dtype} <= {torch.float32, None}
        return bool(error <= (TOLERANCE if precise else ROUGH_TOLERANCE))


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
