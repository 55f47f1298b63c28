"""Multi-head latent attention, which attends to the latents that are cached.

A token's latent c of kv_lora_rank numbers expands to the keys W_K c and the values W_V c of all
heads; one more part of the key, which turns with the position, is common to them (DeepSeek-V2,
arXiv 2405.04434, section 2.1). Expanding all rows for each forward costs the more, the longer a
text is. But q · W_K c = W_K^T q · c, and the mean of W_V c is W_V of the mean of c. So few queries
attend to the latents themselves, as if there were one head of keys and values; many of one session
expand its rows first (section 2.1.2 calls it absorbing). Both give the same but for float noise.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

NEEDS = ("kv_b_proj", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
OWN = "expand_kv"  # the method by which transformers' modules expand what was cached

Rows = tuple[torch.Tensor, torch.Tensor]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def hand_on_latents(layers: nn.Module, implementation: str) -> None:
    """Let modules hand what was cached on to attention as it is, and not expand it.

    Args:
        implementation: of attention, the one that takes it so. With others they go on expanding.
    """
    for module in latent_modules(layers):
        vars(module)[OWN] = _Unexpanded(module, implementation)


def latent_modules(layers: nn.Module) -> Iterator[Any]:
    """Yield the modules of latent attention within some layers, as far as names tell."""
    for module in layers.modules():
        if hasattr(type(module), OWN) and all(hasattr(module, name) for name in NEEDS):
            yield module


def hands_on_latents(module: nn.Module) -> bool:
    """Return whether `hand_on_latents` has found this attention module."""
    return OWN in vars(module)


class _Unexpanded:
    """Takes the place of a module's `expand_kv`."""

    def __init__(self, module: nn.Module, implementation: str) -> None:
        self._module: Any = module
        self._implementation = implementation

    def __call__(self, latents: torch.Tensor, turned: torch.Tensor) -> Rows:
        if self._module.config._attn_implementation == self._implementation:
            return latents, turned
        return expanded(self._module, latents, turned)


def attend_to_latents(
    module: nn.Module, query: torch.Tensor, rows: Rows, attend: Attend
) -> torch.Tensor:
    """Attend within one session -> [1, n, heads, v head dim], in the cheaper way.

    Args:
        query: [1, heads, n, qk head dim].
        rows: latents [1, rows, kv_lora_rank], and the part of the keys that all heads share
            [1, rows, qk_rope_head_dim].
        attend: of queries [1, heads, n, d], keys [kv heads, rows, d] and values [kv heads, rows, v]
            makes [1, n, heads, v].
    """
    if absorbs(module, query.shape[2]):
        return absorbed(module, query, rows, attend)
    keys, values = expanded(module, *(each.unsqueeze(0) for each in rows))
    return attend(query, keys[0], values[0])


def expanded(module: nn.Module, latents: torch.Tensor, turned: torch.Tensor) -> Rows:
    """Return keys [1, heads, rows, qk head dim] and values [1, heads, rows, v head dim].

    Args:
        latents: [1, 1, rows, kv_lora_rank].
        turned: [1, 1, rows, qk_rope_head_dim].
    """
    keys, values = getattr(type(module), OWN)(module, latents, turned)
    return keys, values


def absorbs(module: nn.Module, count: int) -> bool:
    """Return whether `count` queries of one session cost less over the latents themselves.

    For each row, expanding costs kv_lora_rank * (nope + v) products a head, and attending
    nope + rope + v for each query; attending to the latent costs 2 * kv_lora_rank + rope.
    """
    projection = getattr(module, "kv_b_proj", None)
    if type(projection) is not nn.Linear or projection.bias is not None:
        return False  # its weights are kept in a way that only the layer itself multiplies
    rank = _size(module, "kv_lora_rank")
    both = _size(module, "qk_nope_head_dim") + _size(module, "v_head_dim")
    return count * (2 * rank - both) <= rank * both


def absorbed(module: nn.Module, query: torch.Tensor, rows: Rows, attend: Attend) -> torch.Tensor:
    """Attend to the latents themselves: see `attend_to_latents`."""
    latents, turned = rows
    nope = _size(module, "qk_nope_head_dim")
    weight: torch.Tensor = module.kv_b_proj.weight  # type: ignore[union-attr, assignment]
    # [heads, nope + v, rank], as `expand_kv` splits it
    heads = weight.view(query.shape[1], -1, latents.shape[2])
    plain = torch.matmul(query[0, :, :, :nope], heads[:, :nope])
    query = torch.cat((plain[None], query[..., nope:]), dim=3)
    means = attend(query, torch.cat((latents, turned), dim=2), latents)
    return torch.matmul(means.transpose(1, 2), heads[:, nope:].transpose(1, 2)).transpose(1, 2)


def _size(module: nn.Module, name: str) -> int:
    return int(getattr(module, name))
