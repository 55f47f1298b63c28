"""Reading with a head: its cache of a token tree, and the target's parts that it shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swarm.decoding.drafting.features import FeatureReader
from swarm.model.attention import PACKED, running
from swarm.model.cache import KVCache, PackedCache
from swarm.model.device import upload
from swarm.model.head import Head
from swarm.model.heads.embedding import Embedding
from swarm.model.heads.head import FeatureHead
from swarm.model.latent import hand_on_latents
from swarm.model.masks import AttentionView
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.token_tree import MAX_TAIL, Placement


@dataclass(frozen=True, eq=False)
class HeadParts:
    """A head that is ready to draft, shared by all generations of a client.

    Attributes:
        embedding: of the target.
        final_norm: of the target, if features are what is behind it.
    """

    head: FeatureHead
    embedding: Embedding
    final_norm: Head | None

    def reader(self) -> "HeadReader":
        """Return a reader with its own, empty cache."""
        self.head.decoder.config._attn_implementation = PACKED
        hand_on_latents(self.head.decoder, PACKED)
        layers = int(self.head.decoder.config.num_hidden_layers)
        return HeadReader(self, KVCache(0, layers, MAX_SESSION_TOKENS + MAX_TAIL))


@dataclass(frozen=True, eq=False)
class HeadReader(FeatureReader):
    """A head, and the cache of one generation. Use it from one thread at a time."""

    parts: HeadParts
    cache: KVCache

    @cached_property
    def known(self) -> int:
        return len(self.parts.embedding)

    @cached_property
    def context(self) -> int:
        return int(self.parts.head.decoder.config.max_position_embeddings)

    def enter(self, outputs: Tensor) -> Tensor:
        """See `FeatureReader.enter`."""
        norm = self.parts.final_norm
        features = outputs if norm is None else norm.normed(outputs)
        return self.parts.head.enter(features.to(self._device, self._dtype))

    def read(self, tokens: Sequence[int], features: Tensor, placement: Placement) -> Tensor:
        """See `FeatureReader.read`."""
        embedded = self.parts.embedding.rows(tokens).to(self._device, self._dtype)
        self.cache.place(placement)
        view = AttentionView.of(placement, len(tokens), self._device)
        packed = PackedCache([self.cache], [view])
        with running(packed):
            states: Tensor = self.parts.head(
                embedded[None],
                features[None],
                position_ids=upload(torch.tensor([placement.positions]), self._device),
                past_key_values=packed,
                use_cache=True,
            )
        self.cache.advance(len(tokens))
        return states[0]

    def logits(self, states: Tensor) -> Tensor:
        """See `FeatureReader.logits`."""
        return self.parts.head.logits(states).float().cpu()

    @cached_property
    def _dtype(self) -> torch.dtype:
        return self.parts.head.dtype

    @cached_property
    def _device(self) -> torch.device:
        return self.parts.head.device
