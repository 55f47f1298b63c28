"""4-bit NormalFloat: codes for quantiles of a normal distribution, a scale for every 64 weights.

The numbers are those of appendix E of "QLoRA" (arXiv 2305.14314). Codes and scales lie as
bitsandbytes stores them: the higher half of a byte comes first. Its 4-bit floats (fp4) lie alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.folder import Stored
from swarm.model.stored.layout import Layout
from swarm.model.stored.nibbles import unpack_nibbles

BLOCK = 64
SCALES = "weight.absmax"
NUMBERS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# ``create_fp8_map`` and ``get_4bit_type`` in bitsandbytes' functional.py
FP4 = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
FP4_NUMBERS = (*(number / 12.0 for number in FP4), *(-number / 12.0 for number in FP4))


@dataclass(frozen=True)
class NormalFloat4(Layout):
    """A matrix whose rows are whole blocks of weights that share a scale."""

    block: int = BLOCK
    numbers: tuple[float, ...] = NUMBERS
    parts = ("weight", SCALES)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{'nf4' if self.numbers is NUMBERS else 'fp4'}, one scale for {self.block}"

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        rows, columns = shape
        return {
            "weight": Stored("U8", (rows, columns // 2)),
            SCALES: Stored("F32", (rows, columns // self.block)),
        }

    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        numbers = unpack_nibbles(parts["weight"], self.numbers, high_first=True)
        blocks = numbers.view(shape[0], -1, self.block)
        return blocks.mul_(parts[SCALES].unsqueeze(-1)).view(shape).to(dtype)

    def narrow(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parts of a matrix [rows, columns]: each weight becomes the nearest number."""
        rows, columns = matrix.shape
        blocks = matrix.to(torch.float32).view(rows, -1, self.block)
        scales = blocks.abs().amax(-1)
        numbers = torch.tensor(NUMBERS)
        borders = (numbers[1:] + numbers[:-1]) / 2
        shares = blocks / torch.where(scales > 0, scales, 1).unsqueeze(-1)
        codes = torch.bucketize(shares.contiguous(), borders).to(torch.uint8).view(rows, columns)
        return {"weight": (codes[:, 0::2] << 4) | codes[:, 1::2], SCALES: scales}
