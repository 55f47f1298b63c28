"""Keys and values that grow in place: transformers' own cache copies all of it at every token."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64  # positions that are added when a layer is full


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A layer whose ``keys`` and ``values`` are views of larger tensors, where there is room."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See `DynamicLayer.update`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        length = before + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < length:
            self._room = self._grown(key_states, length), self._grown(value_states, length)
            if before:
                self._room[0][..., :before, :] = self.keys
                self._room[1][..., :before, :] = self.values
        keys, values = self._room
        keys[..., before:length, :] = key_states
        values[..., before:length, :] = value_states
        self.keys = keys[..., :length, :]
        self.values = values[..., :length, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """See `DynamicLayer.batch_select_indices`."""
        super().batch_select_indices(indices)
        self._room = None

    @staticmethod
    def _grown(states: Tensor, length: int) -> Tensor:
        return torch.empty(
            *states.shape[:-2], length + ROOM, states.shape[-1],
            dtype=states.dtype, device=states.device,
        )  # fmt: skip


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache; layers with a window of their own stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [
        _RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
