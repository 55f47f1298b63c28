"""Integers that lie by inputs: GPTQ and AWQ, turned around into the order of `PackedInt`.

Both store the matrix [inputs, outputs] of a linear layer, and scales [groups, outputs].

GPTQ (https://github.com/AutoGPTQ/AutoGPTQ, ``qlinear_cuda.py``; arXiv 2210.17323) packs codes along
the inputs, the first in the lowest bits. So words need only be turned. Zero points are packed along
the outputs, and its first format stores them less one. ``g_idx`` tells the group of each input.

AWQ (https://github.com/casper-hansen/AutoAWQ, ``utils/packing_utils.py``; arXiv 2306.00978) packs
codes and zero points along the outputs, in an order of its own: the columns 0, 2, 4, 6, 1, 3, 5, 7
of eight, from the lowest bits.
"""

from collections.abc import Mapping

import torch

from swarm.model.stored.method import GROUPS, ZERO_POINT
from swarm.model.stored.packed_int import WORD_BITS

AWQ_BITS = 4
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Tensors = Mapping[str, torch.Tensor]


def from_gptq(parts: Tensors) -> dict[str, torch.Tensor]:
    """Return the parts of a `PackedInt` of those of GPTQ: the same words, turned."""
    turned = {
        "weight_packed": parts["qweight"].T.contiguous(),
        "weight_scale": parts["scales"].T.contiguous(),
        ZERO_POINT: parts["qzeros"].T.contiguous(),
    }
    if "g_idx" in parts:
        turned[GROUPS] = parts["g_idx"]
    return turned


def from_awq(parts: Tensors) -> dict[str, torch.Tensor]:
    """Return the parts of a `PackedInt` of those of AWQ: the same codes, in another order."""
    return {
        "weight_packed": _pack(_codes(parts["qweight"]).T),
        "weight_scale": parts["scales"].T.contiguous(),
        ZERO_POINT: _pack(_codes(parts["qzeros"])).T.contiguous(),
    }


def _codes(words: torch.Tensor) -> torch.Tensor:
    """Return codes in the order of columns: int32 [n, words] -> uint8 [n, 8 * words]."""
    codes = torch.empty(*words.shape, len(AWQ_ORDER), dtype=torch.uint8)
    for place, column in enumerate(AWQ_ORDER):
        codes[:, :, column] = (words >> (AWQ_BITS * place)) & 15
    return codes.flatten(1)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes along rows, the first in the lowest bits: uint8 [n, 8 * words] -> int32."""
    per_word = WORD_BITS // AWQ_BITS
    pairs = codes[:, 0::2] | (codes[:, 1::2] << AWQ_BITS)
    return pairs.contiguous().view(torch.int32).reshape(len(codes), codes.shape[1] // per_word)
