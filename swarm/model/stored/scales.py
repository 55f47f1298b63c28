"""Scales as they are stored, as numbers."""

import torch


def as_float32(scales: torch.Tensor) -> torch.Tensor:
    """Return scales in float32.

    Bytes are exponents (UE8M0 of the "OCP Microscaling Formats (MX) Specification" 1.0): b means
    2 ** (b - 127), and 255 is no number.
    """
    if scales.dtype == torch.uint8:
        scales = scales.view(torch.float8_e8m0fnu)
    return scales.to(torch.float32)
