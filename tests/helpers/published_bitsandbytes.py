"""Weights of 4 and 8 bits, as bitsandbytes publishes them."""

import json
from typing import Any

import torch

from helpers.published_integers import Pack, Tensors

BNB_NUMBERS = {
    # bitsandbytes' create_normal_map and get_4bit_type
    "nf4": [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    "fp4": [
        *(0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 0.5, 2 / 12, 0.25),
        *(-0.0, -0.0625 / 12, -8 / 12, -1.0, -4 / 12, -0.5, -2 / 12, -0.25),
    ],
}


def bnb_4bit(kind: str, *, nested: bool = False) -> Pack:
    """bitsandbytes: two codes a byte, the first in the upper half, lying flat; a JSON beside."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        block, nested_block, offset = 32, 256, 0.0
        blocks = weight.reshape(-1, block)
        scales = blocks.abs().amax(1)
        numbers = torch.tensor(BNB_NUMBERS[kind])
        parts = {"weight.quant_map": numbers}
        state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "float32"}
        state["shape"] = list(weight.shape)
        if nested:
            table = torch.linspace(-1, 1, 256)
            offset = float(scales.mean())
            largest = torch.stack([each.abs().max() for each in (scales - offset).split(256)])
            whole = largest.repeat_interleave(nested_block)[: len(scales)]
            codes = ((scales - offset) / whole).unsqueeze(1).sub(table).abs().argmin(1)
            parts["weight.absmax"] = codes.to(torch.uint8)
            parts["weight.nested_absmax"] = largest
            parts["weight.nested_quant_map"] = table
            state |= {"nested_blocksize": nested_block, "nested_offset": offset}
            scales = table[codes] * whole + offset
        else:
            parts["weight.absmax"] = scales
        codes = (blocks / scales[:, None]).unsqueeze(-1).sub(numbers).abs().argmin(-1)
        flat = codes.flatten()
        parts["weight"] = ((flat[0::2] << 4) + flat[1::2]).to(torch.uint8).unsqueeze(1)
        text = json.dumps(state).encode()
        name = f"weight.quant_state.bitsandbytes__{kind}"
        parts[name] = torch.tensor(list(text), dtype=torch.uint8)
        return parts, (numbers[codes] * scales[:, None]).reshape(weight.shape)

    return pack


def bnb_8bit(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    largest = weight.abs().amax(1)
    codes = (weight / largest[:, None] * 127).round().to(torch.int8)
    parts = {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, codes * (largest[:, None] / 127)
