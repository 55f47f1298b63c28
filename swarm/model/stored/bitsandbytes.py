"""Checkpoints of bitsandbytes, in the parts of our layouts.

Weights of 4 bits (https://github.com/bitsandbytes-foundation/bitsandbytes, ``QuantState.as_dict``)
lie flat, two codes a byte, with a scale for a block of them. Their shape is in a JSON beside them.
Scales may be quantized themselves, in blocks of 256: ``number[code] * scale + offset``.

Weights of 8 bits have ``SCB``, the largest of each row, which the code 127 stands for.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.stored.nf4 import FP4_NUMBERS, NUMBERS, SCALES

STATES = {kind: f"weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")}
NESTED = ("weight.nested_absmax", "weight.nested_quant_map")
QUANT_MAP = "weight.quant_map"
MAX_STATE_BYTES = 1 << 16
MAX_BLOCK = 1 << 16
MOST_CODE = 127
WEIGHT_FORMAT = "weight_format"
NUMBER_TOLERANCE = 1e-6

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """What the JSON beside a weight of 4 bits says.

    Attributes:
        shape: of the weight.
        block: weights that share a scale.
        nested_block: scales that share a scale; 0 where they are plain numbers.
        offset: added to scales that are quantized themselves.
    """

    shape: tuple[int, int]
    block: int
    nested_block: int
    offset: float

    @classmethod
    def parse(cls, tensor: torch.Tensor) -> "State":
        """Parse the JSON in a tensor of bytes. Raises ValueError for anything else."""
        if tensor.dtype != torch.uint8 or tensor.numel() > MAX_STATE_BYTES:
            raise ValueError("it is no text")
        try:
            settings = json.loads(bytes(tensor.flatten().tolist()))
            rows, columns = settings["shape"]
            nested = settings.get("nested_blocksize") or 0
            sizes = (rows, columns, settings["blocksize"], nested)
            offset = float(settings.get("nested_offset") or 0.0)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"it lacks settings ({error})") from None
        if not all(type(size) is int and 0 <= size < 1 << 32 for size in sizes):
            raise ValueError("its sizes are no numbers")
        possible = rows and columns and sizes[2] and math.isfinite(offset)
        if not possible or max(sizes[2:]) > MAX_BLOCK:
            raise ValueError("its sizes are impossible")
        return cls((rows, columns), sizes[2], nested, offset)


def from_4_bits(parts: Tensors) -> dict[str, torch.Tensor]:
    """Return the parts of a `NormalFloat4`, with plain scales. Raises ValueError."""
    kind, marker = next((kind, each) for kind, each in STATES.items() if each in parts)
    state = State.parse(parts[marker])
    numbers = torch.tensor(NUMBERS if kind == "nf4" else FP4_NUMBERS)
    given = parts[QUANT_MAP].float().flatten()
    if given.shape != numbers.shape or not torch.allclose(given, numbers, atol=NUMBER_TOLERANCE):
        raise ValueError(f"has other numbers than those of {kind}")
    rows, columns = state.shape
    scales = parts[SCALES].flatten()
    if state.nested_block:
        whole = parts[NESTED[0]].float().flatten().repeat_interleave(state.nested_block)
        values = parts[NESTED[1]].float()[scales.int()]
        scales = values * whole[: len(values)] + state.offset
    return {
        "weight": parts["weight"].reshape(rows, columns // 2),
        SCALES: scales.float().reshape(rows, columns // state.block),
    }


def from_8_bits(parts: Tensors) -> dict[str, torch.Tensor]:
    """Return the parts of a `Scaled8Bit`. Raises ValueError."""
    order = parts.get(WEIGHT_FORMAT)
    if order is not None and bool((order != 0).any()):
        raise ValueError("lies in an order that is made for one kind of GPU")
    return {
        "weight": parts["weight"],
        "weight_scale": (parts["SCB"].float() / MOST_CODE).reshape(-1, 1),
    }
