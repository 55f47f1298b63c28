"""How large the states of a model's layers are, worked out before any weight is read."""

import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig

from swarm.model.anatomy import Parts, skeleton
from swarm.model.attention import running, running_now
from swarm.model.cache import KVCache, cache_argument, packed_cache_of
from swarm.model.edge import QUIET
from swarm.model.masks import AttentionView
from swarm.model.recurrent.mixers import Mixers, find_mixers, may_keep_states
from swarm.model.recurrent.states import States
from swarm.model.wrapping import text_of

TOKENS = 2  # that the skeleton reads: states are as large after any number


def state_bytes(
    name: str, config: PreTrainedConfig, parts: Parts, dtype: torch.dtype
) -> tuple[int, ...]:
    """Return the bytes of each layer's states of one session at one row.

    The skeleton of the model reads some tokens. What needs numbers to run, such as a choice of
    experts, fails on it; layers ask for their states before that.

    Raises:
        UnsupportedModel: if the model of this ``name`` cannot be built.
    """
    text = text_of(config)
    sizes = [0] * int(text.num_hidden_layers)
    if not may_keep_states(text):
        return tuple(sizes)
    model = skeleton(name, config).to(dtype)
    decoder = model.get_submodule(parts.decoder)
    for layer in model.get_submodule(parts.layers).children():
        layer.forward = _going_on(layer.forward, parts.returned)
    states = States()

    def run(kept: States) -> None:
        cache = KVCache(0, len(sizes), TOKENS, states=kept)
        view = AttentionView(0, TOKENS, 0, None)
        packed = packed_cache_of(decoder)([cache], [view])
        with running(packed), torch.no_grad():
            decoder(
                **{cache_argument(decoder): packed},
                input_ids=torch.zeros((1, TOKENS), dtype=torch.long, device="meta"),
                position_ids=torch.arange(TOKENS, device="meta")[None],
                use_cache=True,
            )

    with QUIET:
        Mixers(find_mixers(model, parts.layers, run, by_attribute=True), running_now)
        run(states)
    for key, state in states.computed.items():
        sizes[_layer(key[0], parts.layers)] += state.nbytes
    return tuple(sizes)


def _layer(owner: int | str, layers: str) -> int:
    """Return the number of the layer that owns a state: itself, or the name of its module."""
    if isinstance(owner, int):
        return owner
    found = re.match(rf"{re.escape(layers)}\.([0-9]+)\.", owner)
    assert found is not None  # mixers lie within layers
    return int(found[1])


def _going_on(forward: Callable[..., Any], returned: int) -> Callable[..., Any]:
    """Return a layer's forward that returns its input if it fails."""

    def going_on(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        try:
            return forward(hidden_states, *args, **kwargs)
        except Exception:  # the meta device has no numbers
            return (hidden_states, *[None] * (returned - 1)) if returned else hidden_states

    return going_on
