"""Blocks of a GGUF file, widened: from packed bytes to the values that they stand for.

Each function takes blocks, uint8 ``[n, block_bytes]``, and returns their values, float32
``[n, block]``. The arithmetic is that of ``dequantize_row_*`` in ggml-quants.c
(https://github.com/ggml-org/ggml), one operation after the other in float32: the same bits on every
device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# kvalues_iq4nl and kvalues_mxfp4 in ggml-common.h
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def _half(blocks: Tensor, at: int) -> Tensor:
    """Return the float16 that lies at this byte of every block, as float32 ``[n, 1]``."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _fields(packed: Tensor, bits: int, width: int) -> Tensor:
    """Return fields of some bits, uint8 ``[n, fields]``.

    A group of ``width`` bytes holds the lowest bits of all its bytes first, then those above them.
    """
    groups = packed.reshape(len(packed), -1, width)
    fields = [(groups >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return torch.stack(fields, dim=2).reshape(len(packed), -1)


def _bits(packed: Tensor) -> Tensor:
    """Return the bits of bytes, the lowest one first: uint8 ``[n, bytes]`` to ``[n, 8 bytes]``."""
    return torch.stack([(packed >> shift) & 1 for shift in range(8)], dim=2).flatten(1)


def _levels(indices: Tensor, levels: tuple[int, ...]) -> Tensor:
    return torch.tensor(levels, dtype=torch.float32, device=indices.device)[indices.int()]


def _scaled(values: Tensor, scales: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Return values times the scales of their groups, less the offsets, ``[n, values]``.

    Args:
        values: ``[n, values]``.
        scales, offsets: ``[n, groups]``.
    """
    grouped = values.float().reshape(*scales.shape, -1).mul_(scales[:, :, None])
    if offsets is not None:
        grouped = grouped.sub_(offsets[:, :, None])
    return grouped.reshape(len(values), -1)


def q4_0(blocks: Tensor) -> Tensor:
    return _fields(blocks[:, 2:], 4, 16).float().sub_(8).mul_(_half(blocks, 0))


def q4_1(blocks: Tensor) -> Tensor:
    return _fields(blocks[:, 4:], 4, 16).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def q5_0(blocks: Tensor) -> Tensor:
    values = _fields(blocks[:, 6:], 4, 16) | (_bits(blocks[:, 2:6]) << 4)
    return values.float().sub_(16).mul_(_half(blocks, 0))


def q5_1(blocks: Tensor) -> Tensor:
    values = _fields(blocks[:, 8:], 4, 16) | (_bits(blocks[:, 4:8]) << 4)
    return values.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def q2_k(blocks: Tensor) -> Tensor:
    scales = blocks[:, :16]
    return _scaled(
        _fields(blocks[:, 16:80], 2, 32),
        _half(blocks, 80) * (scales & 15).float(),
        _half(blocks, 82) * (scales >> 4).float(),
    )


def q3_k(blocks: Tensor) -> Tensor:
    packed = blocks[:, 96:108]
    scales = _fields(packed[:, :8], 4, 8) | (_fields(packed[:, 8:], 2, 4) << 4)
    values = _fields(blocks[:, 32:96], 2, 32) | (_fields(blocks[:, :32], 1, 32) << 2)
    return _scaled(values.float().sub_(4), _half(blocks, 108) * scales.float().sub_(32))


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and offsets of Q4_K and Q5_K, float32 ``[n, 8]``, of 12 bytes."""
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([low & 63, (high & 15) | ((low >> 6) << 4)], dim=1)
    offsets = torch.cat([middle & 63, (high >> 4) | ((middle >> 6) << 4)], dim=1)
    return scales.float(), offsets.float()


def q4_k(blocks: Tensor) -> Tensor:
    scales, offsets = _six_bits(blocks[:, 4:16])
    values = _fields(blocks[:, 16:], 4, 32)
    return _scaled(values, _half(blocks, 0) * scales, _half(blocks, 2) * offsets)


def q5_k(blocks: Tensor) -> Tensor:
    scales, offsets = _six_bits(blocks[:, 4:16])
    values = _fields(blocks[:, 48:], 4, 32) | (_fields(blocks[:, 16:48], 1, 32) << 4)
    return _scaled(values, _half(blocks, 0) * scales, _half(blocks, 2) * offsets)


def q6_k(blocks: Tensor) -> Tensor:
    values = _fields(blocks[:, :128], 4, 64) | (_fields(blocks[:, 128:192], 2, 32) << 4)
    scales = blocks[:, 192:208].view(torch.int8).float()
    return _scaled(values.float().sub_(32), _half(blocks, 208) * scales)


def iq4_nl(blocks: Tensor) -> Tensor:
    return _levels(_fields(blocks[:, 2:], 4, 16), IQ4_LEVELS).mul_(_half(blocks, 0))


def iq4_xs(blocks: Tensor) -> Tensor:
    low = torch.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], dim=2).reshape(-1, 8)
    high = _bits(blocks[:, 2:4]).reshape(-1, 8, 2)
    scales = low | (high[:, :, 0] << 4) | (high[:, :, 1] << 5)
    values = _levels(_fields(blocks[:, 8:], 4, 16), IQ4_LEVELS)
    return _scaled(values, _half(blocks, 0) * scales.float().sub_(32))


def mxfp4(blocks: Tensor) -> Tensor:
    # ggml_e8m0_to_fp32_half: the levels are twice the values, so the exponent is one lower
    exponent = blocks[:, :1].int()
    bits = torch.where(exponent < 2, 0x00200000 << exponent.clamp(max=1), (exponent - 1) << 23)
    return _levels(_fields(blocks[:, 1:], 4, 16), FP4_LEVELS).mul_(bits.view(torch.float32))


WIDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "MXFP4": mxfp4,
}
