"""A whole model whose layers keep states, reading one line of tokens: a draft model."""

import torch
from torch import nn
from transformers import PreTrainedModel

from swarm.decoding.drafting.model import LineReader
from swarm.model.anatomy import find_layers
from swarm.model.attention import running, running_now
from swarm.model.cache import KVCache, cache_argument, packed_cache_of
from swarm.model.masks import AttentionView
from swarm.model.recurrent.mixers import Mixers, find_mixers, may_keep_states
from swarm.model.recurrent.states import States
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.token_tree import MAX_TAIL, Placement

# How far back a text usually parts from its drafts: states before that are not kept, so that the
# kept ones lie close together. A text that parts earlier is read anew.
MOST_BACK = 64
SNAPSHOTS = 8
TRIED = 2  # tokens that the model reads to show which modules keep states


class StatefulModel:
    """A causal language model with recurrent layers, shared by all its readers.

    Make one with `StatefulModel.of`; use it from one thread at a time. The model stays usable
    without it.
    """

    def __init__(self, model: PreTrainedModel, layers: str) -> None:
        self.model = model
        decoder: nn.Module = model.get_submodule(layers.rpartition(".")[0])
        self._packed_cache = packed_cache_of(decoder)
        self._cache_argument = cache_argument(model)
        self._layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)

        def run(states: States) -> None:
            self.read(KVCache(0, self._layers, states=states), [0] * TRIED)

        mixers = Mixers(find_mixers(model, layers, run, by_attribute=True), running_now)
        # A draft is read in short pieces: one token at a time costs little, and is always right.
        mixers.stepwise = True

    @classmethod
    def of(cls, model: PreTrainedModel) -> "StatefulModel | None":
        """Return a model for readers, or None for one whose layers keep no states."""
        config = model.config.get_text_config(decoder=True)
        if not may_keep_states(config):
            return None
        return cls(model, find_layers(model, config.name_or_path, config))

    def reader(self) -> LineReader:
        """Return a reader with its own, empty cache."""
        states = States(SNAPSHOTS)
        return _Reader(self, KVCache(0, self._layers, MAX_SESSION_TOKENS + MAX_TAIL, states=states))

    @torch.inference_mode()
    def read(self, cache: KVCache, ids: list[int]) -> torch.Tensor:
        """Read tokens behind those of the cache; return the last one's logits: see `LineReader`."""
        start = cache.length
        count = len(ids)
        cache.place(Placement(start, (), (), trunk=max(0, start - MOST_BACK), sees=None))
        device = self.model.device
        packed = self._packed_cache([cache], [AttentionView(start, count, start, None)])
        with running(packed):
            logits: torch.Tensor = self.model(
                **{self._cache_argument: packed},
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.arange(start, start + count, device=device)[None],
                use_cache=True,
                logits_to_keep=1,
            ).logits
        cache.advance(count, torch.tensor(ids))
        return logits[0, -1:].float().cpu()


class _Reader(LineReader):
    """A model, and the cache of one generation."""

    def __init__(self, model: StatefulModel, cache: KVCache) -> None:
        self._model = model
        self._cache = cache

    def read(self, ids: list[int]) -> torch.Tensor:
        """See `LineReader.read`."""
        return self._model.read(self._cache, ids)

    def rewind(self, length: int) -> int:
        """See `LineReader.rewind`: back to the newest states that have not read more."""
        states = self._cache.states
        assert states is not None  # it was made with some
        if length < self._cache.length:
            length = states.row_before(length)
            self._cache.place(Placement(length, (), (), trunk=0, sees=None))
        return length
