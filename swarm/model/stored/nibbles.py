"""Two numbers a byte."""

from collections.abc import Sequence
from functools import cache

import torch

# E2M1 of the Open Compute Project's "Microscaling Formats (MX) Specification" 1.0, section 5.3.3:
# a sign, two bits of exponent, one of mantissa.
FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
SIGNED = tuple(float(code - 8) for code in range(16))  # stored with 8 added
UNSIGNED = tuple(float(code) for code in range(16))


def unpack_nibbles(
    packed: torch.Tensor, numbers: tuple[float, ...], high_first: bool = False
) -> torch.Tensor:
    """Return what each half of a byte stands for: uint8 [rows, n] -> float32 [rows, 2 * n].

    Args:
        numbers: for each of the 16 codes.
        high_first: whether the higher half of a byte comes first, instead of the lower one.
    """
    pairs = _pairs(numbers, high_first, packed.device).index_select(
        0, packed.flatten().to(torch.int32)
    )
    return pairs.view(torch.float32).view(len(packed), -1)


@cache
def _pairs(numbers: Sequence[float], high_first: bool, device: torch.device) -> torch.Tensor:
    """Return the two numbers of every byte, side by side in 64 bits: one is looked up at once."""
    with torch.inference_mode(False):
        codes = torch.arange(256)
        table = torch.tensor(numbers, dtype=torch.float32)
        halves = [table[codes & 15], table[codes >> 4]]
        pairs = torch.stack(halves[::-1] if high_first else halves, dim=1)
        return pairs.view(torch.float64).flatten().to(device)
