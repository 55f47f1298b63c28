"""Weights of 4 floating-point bits, in groups with a scale of 8 bits: MXFP4 and NVFP4.

``weight = number * scale``, both from the Open Compute Project's "Microscaling Formats (MX)
Specification" 1.0: numbers are E2M1, groups of 32 have an exponent (UE8M0) as their scale. gpt-oss
is published so (https://arxiv.org/abs/2508.10925, section 2.1), its tensors end in ``_blocks`` and
``_scales``. NVFP4 has groups of 16, scales in E4M3, and one more scale in float32 for the whole
matrix, which ModelOpt multiplies with (``weight_scale_2``) and compressed-tensors divides by
(``weight_global_scale``; its ``nvfp4-pack-quantized``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.folder import Stored
from swarm.model.stored.layout import Layout
from swarm.model.stored.nibbles import FLOAT4, unpack_nibbles
from swarm.model.stored.scales import as_float32

MULTIPLIED = "weight_scale_2"
DIVIDED = "weight_global_scale"


@dataclass(frozen=True)
class Float4(Layout):
    """A matrix of 4-bit floats in groups along its rows.

    Attributes:
        numbers: the part that holds two numbers a byte, [rows, columns / 2].
        dtype: of that part, as safetensors calls it: U8 or I8.
        scale: the part that holds the scales, [rows, columns / group].
        scale_dtype: as safetensors calls it.
        group: columns that share a scale.
        whole: the part that scales the whole matrix, `MULTIPLIED` or `DIVIDED`; None without one.
    """

    numbers: str
    dtype: str
    scale: str
    scale_dtype: str
    group: int
    whole: str | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{'nvfp4' if self.whole else 'mxfp4'}, one scale for {self.group}"

    @property
    def parts(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.numbers, self.scale, *([self.whole] if self.whole else []))

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        rows, columns = shape
        shapes = {
            self.numbers: Stored(self.dtype, (rows, columns // 2)),
            self.scale: Stored(self.scale_dtype, (rows, columns // self.group)),
        }
        return shapes | ({self.whole: Stored("F32", (1,))} if self.whole else {})

    def rows_of(self, part: str) -> int:
        return 0 if part == self.whole else 1

    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        numbers = unpack_nibbles(parts[self.numbers].view(torch.uint8), FLOAT4)
        scales = as_float32(parts[self.scale])
        if self.whole == DIVIDED:
            scales = scales / parts[DIVIDED].reshape(())
        elif self.whole == MULTIPLIED:
            scales = scales * parts[MULTIPLIED].reshape(())
        groups = numbers.view(*scales.shape, self.group)
        return groups.mul_(scales.unsqueeze(-1)).view(shape).to(dtype)
