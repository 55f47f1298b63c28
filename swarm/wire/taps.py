"""Outputs of layers within the model, which a client may have its peers tell it.

Some drafters predict from what the target computes half-way (EAGLE-3, arXiv 2503.01840). A *tap* is
the output of one layer; each is told by the peer that computes this layer.
"""

from itertools import pairwise
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from swarm.wire.fields import MAX_MODEL_LAYERS, Dtype, StrictModel
from swarm.wire.tensors import (
    MAX_FRAME_TOKENS,
    MAX_HIDDEN_SIZE,
    dtype_name,
)

MAX_TAPS = 8  # of a session: published drafters take three to five
# Of a message, so that none keeps an answer waiting behind it for long. All taps of one token have
# room, even of the widest model.
MAX_TAPPED_BYTES = 4 * MAX_TAPS * MAX_HIDDEN_SIZE
SCALE_BYTES = 4
FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
LEAST_SCALE = 1e-30  # of a row of zeros

Float8 = Literal["float8_e4m3fn"]
TapLayers = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_MODEL_LAYERS)], ...],
    Field(strict=False, min_length=1, max_length=MAX_TAPS),
]


class TapTerms(StrictModel):
    """Which layers' outputs are told at the tokens that are answered.

    ``layers`` are counted from 0 on, over the whole model, and ascend. With ``float8`` the outputs
    are rounded to 8 bits, else they travel in the dtype that they were computed in.
    """

    layers: TapLayers
    float8: bool = True

    @model_validator(mode="after")
    def _ascend(self) -> "TapTerms":
        if not ascend(self.layers):
            raise ValueError("the layers do not ascend")
        return self

    def within(self, first: int, last: int) -> "TapTerms | None":
        """Return the terms for a peer that computes the layers ``[first, last)``; None if no tap is
        among them."""
        layers = tuple(layer for layer in self.layers if first <= layer < last)
        return TapTerms(layers=layers, float8=self.float8) if layers else None


class LayerOutputs(StrictModel):
    """Outputs of layers ``[tokens, layers, hidden]`` in row-major, little-endian bytes.

    In float8 (E4M3, without infinities) each layer's output at a token has a scale, a float32, by
    which its values are multiplied.
    """

    dtype: Dtype | Float8
    tokens: Annotated[int, Field(ge=1, le=MAX_FRAME_TOKENS)]
    layers: Annotated[int, Field(ge=1, le=MAX_TAPS)]
    hidden: Annotated[int, Field(ge=1, le=MAX_HIDDEN_SIZE)]
    data: Annotated[bytes, Field(max_length=MAX_TAPPED_BYTES)]
    scales: Annotated[bytes, Field(max_length=SCALE_BYTES * MAX_TAPS * MAX_FRAME_TOKENS)] = b""

    @model_validator(mode="after")
    def _sizes_fit_shape(self) -> "LayerOutputs":
        rows = self.tokens * self.layers
        if len(self.data) != prod((rows, self.hidden, _torch_dtype(self.dtype).itemsize)):
            raise ValueError(f"{len(self.data)} bytes given, not what dtype and shape say")
        if len(self.scales) != SCALE_BYTES * rows * (self.dtype == "float8_e4m3fn"):
            raise ValueError(f"{len(self.scales)} bytes of scales for {rows} outputs")
        return self

    @classmethod
    def pack(cls, outputs: Tensor, float8: bool) -> "tuple[LayerOutputs, ...]":
        """Pack outputs ``[tokens, layers, hidden]`` of a dtype that may travel, on any device.

        Returns:
            Parts of at most `MAX_TAPPED_BYTES`.
        """
        dtype: Dtype | Float8 = "float8_e4m3fn" if float8 else dtype_name(outputs.dtype)
        a_token = outputs[0].numel() * _torch_dtype(dtype).itemsize
        step = min(MAX_FRAME_TOKENS, MAX_TAPPED_BYTES // a_token)
        parts = (outputs[start : start + step] for start in range(0, len(outputs), step))
        return tuple(cls._pack_part(part, dtype) for part in parts)

    @classmethod
    def _pack_part(cls, outputs: Tensor, dtype: Dtype | Float8) -> "LayerOutputs":
        tokens, layers, hidden = outputs.shape
        scales = b""
        if dtype == "float8_e4m3fn":
            exact = outputs.float()
            scale = (exact.abs().amax(-1, keepdim=True) / FLOAT8_MAX).clamp_min(LEAST_SCALE)
            outputs = (exact / scale).to(FLOAT8)
            scales = scale.numpy(force=True).tobytes()
        data = outputs.contiguous().view(torch.uint8).numpy(force=True).tobytes()
        return cls(
            dtype=dtype, tokens=tokens, layers=layers, hidden=hidden, data=data, scales=scales
        )

    def unpack(self) -> Tensor:
        """Return float32 outputs ``[tokens, layers, hidden]``, on the CPU; they may be infinite."""
        flat = torch.frombuffer(bytearray(self.data), dtype=_torch_dtype(self.dtype))
        outputs = flat.view(self.tokens, self.layers, self.hidden).float()
        if not self.scales:
            return outputs
        scales = torch.frombuffer(bytearray(self.scales), dtype=torch.float32)
        return outputs * scales.view(self.tokens, self.layers, 1)


def ascend(layers: tuple[int, ...]) -> bool:
    """Return whether each layer is greater than the one before it."""
    return all(one < following for one, following in pairwise(layers))


def _torch_dtype(name: Dtype | Float8) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype
