"""Weights of 8 bits with scales: FP8 in blocks, by row, or whole; int8 by row.

``weight = number * scale``, for a block of rows and columns each. DeepSeek calls the scales
``weight_scale_inv`` and multiplies with them all the same (its ``inference/kernel.py``,
``weight_dequant``). compressed-tensors (``float-quantized``, ``int-quantized``) and ModelOpt
(``FP8``) call them ``weight_scale``. Scales that are powers of two (UE8M0) may lie in 8 bits, as
the exponent alone: 2 ** (byte - 127), as in the Open Compute Project's "Microscaling Formats (MX)
Specification" 1.0, section 5.4.1. The float8 formats are those of arXiv 2209.05433.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.folder import Stored
from swarm.model.stored.layout import Layout
from swarm.model.stored.scales import as_float32

WEIGHTS = frozenset({"F8_E4M3", "F8_E5M2", "I8"})
SCALES = frozenset({"F32", "BF16", "F16", "F8_E8M0", "U8"})


@dataclass(frozen=True)
class Scaled8Bit(Layout):
    """A matrix of 8-bit numbers, and one scale for each block of it.

    Blocks at the right and at the lower edge may be smaller.

    Attributes:
        dtype: of the numbers, as safetensors calls it.
        scale: the part that holds the scales, [ceil(rows / block), ceil(columns / block)].
        scale_dtype: as safetensors calls it.
        block: rows and columns that share a scale; None for all of them.
    """

    dtype: str
    scale: str
    scale_dtype: str
    block: tuple[int | None, int | None]

    @property
    def name(self) -> str:  # type: ignore[override]
        number = "int8" if self.dtype == "I8" else "fp8"
        rows, columns = self.block
        if rows is None and columns is None:
            return f"{number}, one scale a matrix"
        if rows == 1 and columns is None:
            return f"{number}, one scale a row"
        return f"{number}, blocks of {rows or 'all'} x {columns or 'all'}"

    @property
    def parts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("weight", self.scale)

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        blocks = tuple(
            -(-size // block) if block else 1 for size, block in zip(shape, self.block, strict=True)
        )
        return {"weight": Stored(self.dtype, shape), self.scale: Stored(self.scale_dtype, blocks)}

    def rows_of(self, part: str) -> int:
        return 1 if part == "weight" else self.block[0] or 0

    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        rows, columns = shape
        block_rows, block_columns = self.block
        numbers, unit = _in_units(parts["weight"])
        scales = as_float32(parts[self.scale]).reshape(self.shapes(shape)[self.scale].shape) * unit
        if block_columns and block_columns > 1:
            scales = scales.repeat_interleave(block_columns, dim=1)[:, :columns]
        if not block_rows or block_rows == 1 or block_rows >= rows:
            return numbers.mul_(scales).to(dtype)
        if rows % block_rows == 0:
            blocks = numbers.view(-1, block_rows, columns)
            return blocks.mul_(scales.unsqueeze(1)).view(shape).to(dtype)
        return numbers.mul_(scales.repeat_interleave(block_rows, dim=0)[:rows]).to(dtype)


def _in_units(stored: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return 8-bit numbers in float32, and the unit that they are to be multiplied with.

    The bits of float8 are moved to where float16 has them, which is exact and on CPUs ten times as
    fast as torch's conversion. In E4M3 the exponent's bias is 7, in float16 it is 15.
    """
    if stored.dtype == torch.int8:
        return stored.to(torch.float32), 1.0
    bits = stored.view(torch.int8).to(torch.int16)  # the sign comes along
    if stored.dtype == torch.float8_e5m2:
        return (bits << 8).view(torch.float16).to(torch.float32), 1.0
    bits = (bits << 7).bitwise_and_(~0x4000 & ~0x7F)
    return bits.view(torch.float16).to(torch.float32), 2.0**8
