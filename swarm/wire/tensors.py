"""Tensors as bytes. Hidden states travel in the dtype in which they were computed, unrounded."""

from math import prod
from typing import Annotated

import numpy
import torch
from pydantic import Field, model_validator
from torch import Tensor

from swarm.wire.fields import Dtype, StrictModel

MAX_FRAME_TOKENS = 256  # a window or a chunk of a prompt: longer prompts travel in chunks
MAX_HIDDEN_SIZE = 32_768  # twice the widest open model today
FLOAT_BYTES = 4  # of a value in the widest dtype that travels
MAX_TENSOR_BYTES = FLOAT_BYTES * MAX_FRAME_TOKENS * MAX_HIDDEN_SIZE

_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# The exponent's bits, shifted left by one to drop the sign: all are set in infinities and NaNs.
_NOT_FINITE: dict[Dtype, tuple[str, int]] = {
    "float32": ("<u4", 0xFF000000),
    "bfloat16": ("<u2", 0xFF00),
    "float16": ("<u2", 0xF800),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> Dtype:
    """Return the name of a dtype on the wire. Raises KeyError for one that does not travel."""
    return _NAMES[dtype]


class WireTensor(StrictModel):
    """Hidden states ``[tokens, hidden]`` in row-major, little-endian bytes."""

    dtype: Dtype
    tokens: Annotated[int, Field(ge=0, le=MAX_FRAME_TOKENS)]
    hidden: Annotated[int, Field(ge=1, le=MAX_HIDDEN_SIZE)]
    data: Annotated[bytes, Field(max_length=MAX_TENSOR_BYTES)]

    @model_validator(mode="after")
    def _size_fits_shape(self) -> "WireTensor":
        expected = prod((self.tokens, self.hidden, _DTYPES[self.dtype].itemsize))
        if len(self.data) != expected:
            raise ValueError(
                f"{len(self.data)} bytes given, {expected} expected from dtype and shape"
            )
        return self

    @classmethod
    def pack(cls, tensor: Tensor) -> "WireTensor":
        """Pack a tensor ``[tokens, hidden]`` of a dtype that may travel, on any device."""
        tokens, hidden = tensor.shape
        # numpy knows no bfloat16. Each of torch's operations releases the interpreter's lock, and a
        # thread that computes may be slow to give it back: so there are as few as possible.
        known = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        data = known.numpy(force=True).tobytes()
        return cls(dtype=dtype_name(tensor.dtype), tokens=tokens, hidden=hidden, data=data)

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite. It is read from the bytes, whatever device made them."""
        kind, least = _NOT_FINITE[self.dtype]
        return not self.data or int((numpy.frombuffer(self.data, kind) << 1).max()) < least

    def unpack(self) -> Tensor:
        """Return a CPU tensor ``[tokens, hidden]`` that owns its memory."""
        if not self.tokens:
            return torch.empty(0, self.hidden, dtype=_DTYPES[self.dtype])
        flat = torch.frombuffer(bytearray(self.data), dtype=_DTYPES[self.dtype])
        return flat.view(self.tokens, self.hidden)
