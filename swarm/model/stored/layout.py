"""How the bytes of one weight lie in a checkpoint, and which numbers they mean.

A layout is pure: plain torch operations, one rounding to the dtype of the computation, so that the
same bytes give the same bits on every peer and on every device.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod

import torch

from swarm.model.folder import Stored

DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""Dtypes of parts, as safetensors calls them."""


class Layout(ABC):
    """One way in which a matrix is stored as a few tensors.

    Attributes:
        name: in words, for messages.
        parts: the tensors that make one weight. A part that begins with ``weight`` has the weight's
            own name in its place: see `part_name`.
    """

    name: str
    parts: tuple[str, ...]

    @abstractmethod
    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        """Return how each part of a matrix [rows, columns] lies in its file."""

    @abstractmethod
    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        """Return the matrix [rows, columns] in a floating-point dtype, on its parts' device."""

    def rows_of(self, part: str) -> int:
        """Return how many of the matrix's rows one row of a part is for; 0 for all of them.

        The largest number is a multiple of the others.
        """
        return 1

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Return the memory of all parts of a matrix [rows, columns]."""
        stored = self.shapes(shape).values()
        return sum(prod(each.shape) * DTYPES[each.dtype].itemsize for each in stored)


def part_name(weight: str, part: str) -> str:
    """Return the name of a part in a checkpoint: beside the weight, or the weight's name and more.

    >>> part_name("mlp.up_proj.weight", "weight_scale")
    'mlp.up_proj.weight_scale'
    >>> part_name("experts.up_proj", "weight_blocks")
    'experts.up_proj_blocks'
    >>> part_name("mlp.up_proj.weight", "qzeros")
    'mlp.up_proj.qzeros'
    """
    if part.startswith("weight"):
        return weight + part.removeprefix("weight")
    return f"{weight.rpartition('.')[0]}.{part}"
