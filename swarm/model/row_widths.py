"""How many numbers each layer of a model caches of one token, found by running its skeleton.

Configurations do not tell: keys may be wider than values, one layer's wider than another's, a
latent may take the place of both, and a layer may share what another one caches. So each kind of
layer runs once on the meta device, with a cache like a session's.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from swarm.model.anatomy import MAX_RETURNED, find_layers, skeleton
from swarm.model.cache import KVCache, cache_argument, packed_cache_of
from swarm.model.checkpoint import Checkpoint
from swarm.model.latent import latent_modules
from swarm.model.masks import AttentionView
from swarm.model.recurrent.states import States


@dataclass(frozen=True)
class RowWidths:
    """How many numbers the layers of a model hold of one token.

    Attributes:
        cached: by layer, for as long as the session lasts; None where it cannot be told.
        expanded: by the layer that attends, of keys and values that it makes of a latent.
    """

    cached: tuple[int | None, ...]
    expanded: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "RowWidths":
        """Run the skeleton of a model. Raise UnsupportedModel if it has none."""
        model = skeleton(checkpoint.name, checkpoint.model_config)
        name = find_layers(model, checkpoint.name, checkpoint.config)
        layers = model.get_submodule(name)
        assert isinstance(layers, nn.ModuleList)  # found as one
        expanded = (each.kv_b_proj.out_features for each in latent_modules(layers))
        return cls(
            _cached(model.get_submodule(name.rpartition(".")[0]), layers),
            max(expanded, default=0),
        )


class _PassesOn(nn.Module):
    """Takes the place of a layer of which nothing is asked.

    Args:
        returned: elements of the tuple that a layer returns; 0 for no tuple.
    """

    def __init__(self, returned: int) -> None:
        super().__init__()
        self._returned = returned

    def forward(
        self, hidden_states: torch.Tensor, *args: object, **kwargs: object
    ) -> torch.Tensor | tuple[torch.Tensor | None, ...]:
        if not self._returned:
            return hidden_states
        return (hidden_states, *[None] * (self._returned - 1))


def _cached(decoder: nn.Module, layers: nn.ModuleList) -> tuple[int | None, ...]:
    own = list(layers)
    found: dict[tuple[tuple[str, torch.Size], ...], int | None] = {}
    widths = []
    for index, layer in enumerate(own):
        kind = tuple((name, each.shape) for name, each in layer.named_parameters())
        if kind not in found:
            found[kind] = _width(decoder, layers, own, index)
        widths.append(found[kind])
    return tuple(widths)


def _width(
    decoder: nn.Module, layers: nn.ModuleList, own: list[nn.Module], index: int
) -> int | None:
    """Run one layer alone. What fails behind its cache does not matter, as experts do on meta."""
    ids = torch.zeros((1, 1), dtype=torch.long, device="meta")
    for returned in range(MAX_RETURNED + 1):
        cache = KVCache(0, len(own), states=States())
        packed = packed_cache_of(decoder)([cache], [AttentionView(0, 1, 0, None)])
        for place, layer in enumerate(own):
            layers[place] = layer if place == index else _PassesOn(returned)
        try:
            with torch.inference_mode(), contextlib.suppress(Exception):  # from the model's code
                decoder(input_ids=ids, **{cache_argument(decoder): packed}, use_cache=True)
                return cache.numel_per_token
        finally:
            for place, layer in enumerate(own):
                layers[place] = layer
        assert cache.states is not None
        if cache.numel_per_token or cache.states.computed:  # or it keeps a state, and no rows
            return cache.numel_per_token
    return None
