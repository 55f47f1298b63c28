"""Pack numbers as blocks of GGUF files, value by value from the layouts of ggml's structures.

Each function takes numbers ``[n, block]`` and returns the bytes ``[n, block_bytes]`` of blocks, and
the numbers that these stand for, by definition: scale times code, in float32. It shares no code
with what reads them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Packed = tuple[Bytes, Numbers]

IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def _half(values: Numbers) -> tuple[Numbers, Bytes]:
    """Round to float16: return the numbers ``[n, 1]`` and their bytes ``[n, 2]``."""
    rounded = values.reshape(-1, 1).astype("<f2")
    return rounded.astype(np.float32), rounded.view(np.uint8)


def _codes(values: Numbers, low: int, high: int) -> NDArray[np.int64]:
    return np.clip(np.rint(np.nan_to_num(values)), low, high).astype(np.int64)


def _nearest(values: Numbers, levels: Numbers) -> NDArray[np.int64]:
    return np.abs(values[..., None] - levels).argmin(axis=-1)


def _put(blocks: Bytes, byte: int, shift: int, code: NDArray[np.int64]) -> None:
    blocks[:, byte] |= (code << shift).astype(np.uint8)


def _blocks(count: int, nbytes: int) -> Bytes:
    return np.zeros((count, nbytes), dtype=np.uint8)


def _halves(blocks: Bytes, start: int, codes: NDArray[np.int64]) -> None:
    """Put 4 bits each of 32 codes: the first 16 in the lower halves of 16 bytes."""
    for i in range(32):
        _put(blocks, start + i % 16, 4 * (i // 16), codes[:, i] & 15)


def _fifth_bits(blocks: Bytes, start: int, codes: NDArray[np.int64]) -> None:
    for i in range(32):
        _put(blocks, start + i // 8, i % 8, codes[:, i] >> 4)


def q4_0(values: Numbers) -> Packed:
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 7)
    codes = _codes(values / scale, -8, 7)
    blocks = _blocks(len(values), 18)
    blocks[:, :2] = scale_bytes
    _halves(blocks, 2, codes + 8)
    return blocks, scale * codes.astype(np.float32)


def q4_1(values: Numbers) -> Packed:
    scale, scale_bytes = _half((values.max(axis=1) - values.min(axis=1)) / 15)
    least, least_bytes = _half(values.min(axis=1))
    codes = _codes((values - least) / scale, 0, 15)
    blocks = _blocks(len(values), 20)
    blocks[:, :2] = scale_bytes
    blocks[:, 2:4] = least_bytes
    _halves(blocks, 4, codes)
    return blocks, scale * codes.astype(np.float32) + least


def q5_0(values: Numbers) -> Packed:
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 15)
    codes = _codes(values / scale, -16, 15)
    blocks = _blocks(len(values), 22)
    blocks[:, :2] = scale_bytes
    _fifth_bits(blocks, 2, codes + 16)
    _halves(blocks, 6, codes + 16)
    return blocks, scale * codes.astype(np.float32)


def q5_1(values: Numbers) -> Packed:
    scale, scale_bytes = _half((values.max(axis=1) - values.min(axis=1)) / 31)
    least, least_bytes = _half(values.min(axis=1))
    codes = _codes((values - least) / scale, 0, 31)
    blocks = _blocks(len(values), 24)
    blocks[:, :2] = scale_bytes
    blocks[:, 2:4] = least_bytes
    _fifth_bits(blocks, 4, codes)
    _halves(blocks, 8, codes)
    return blocks, scale * codes.astype(np.float32) + least


def q8_0(values: Numbers) -> Packed:
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 127)
    codes = _codes(values / scale, -128, 127)
    blocks = _blocks(len(values), 34)
    blocks[:, :2] = scale_bytes
    for i in range(32):
        _put(blocks, 2 + i, 0, codes[:, i] & 255)
    return blocks, scale * codes.astype(np.float32)


def _groups(values: Numbers, size: int) -> Numbers:
    return values.reshape(len(values), -1, size)


def _two_bits(blocks: Bytes, start: int, codes: NDArray[np.int64]) -> None:
    """Put 2 bits each of 256 codes: 32 bytes hold four rounds of 32."""
    for i in range(256):
        _put(blocks, start + 32 * (i // 128) + i % 32, 2 * (i % 128 // 32), codes[:, i] & 3)


def q2_k(values: Numbers) -> Packed:
    groups = _groups(values, 16)
    least = np.minimum(groups.min(axis=2), 0)
    scale, scale_bytes = _half((groups.max(axis=2) - least).max(axis=1) / 3 / 15)
    offset, offset_bytes = _half(-least.min(axis=1) / 15)
    scales = _codes((groups.max(axis=2) - least) / 3 / scale, 0, 15)
    offsets = _codes(-least / offset, 0, 15)
    wide = scale * scales.astype(np.float32)
    lower = offset * offsets.astype(np.float32)
    codes = _codes((groups + lower[..., None]) / wide[..., None], 0, 3)
    blocks = _blocks(len(values), 84)
    for j in range(16):
        _put(blocks, j, 0, scales[:, j] | offsets[:, j] << 4)
    _two_bits(blocks, 16, codes.reshape(-1, 256))
    blocks[:, 80:82] = scale_bytes
    blocks[:, 82:84] = offset_bytes
    meant = wide[..., None] * codes.astype(np.float32) - lower[..., None]
    return blocks, meant.reshape(values.shape)


def q3_k(values: Numbers) -> Packed:
    groups = _groups(values, 16)
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 3 / 31)
    scales = _codes(np.abs(groups).max(axis=2) / 3 / scale, -32, 31)
    wide = scale * scales.astype(np.float32)
    codes = _codes(groups / wide[..., None], -4, 3)
    blocks = _blocks(len(values), 110)
    flat = codes.reshape(-1, 256) + 4
    for i in range(256):
        _put(blocks, i % 32, i // 32, flat[:, i] >> 2)
    _two_bits(blocks, 32, flat)
    for j in range(16):
        _put(blocks, 96 + j % 8, 4 * (j // 8), scales[:, j] + 32 & 15)
        _put(blocks, 104 + j % 4, 2 * (j // 4), scales[:, j] + 32 >> 4)
    blocks[:, 108:110] = scale_bytes
    return blocks, (wide[..., None] * codes.astype(np.float32)).reshape(values.shape)


def _k_blocks(values: Numbers, nbytes: int, most: int) -> tuple[Bytes, NDArray[np.int64], Numbers]:
    """Begin blocks of Q4_K or Q5_K: scales and offsets of 6 bits for 8 groups of 32."""
    groups = _groups(values, 32)
    least = np.minimum(groups.min(axis=2), 0)
    scale, scale_bytes = _half((groups.max(axis=2) - least).max(axis=1) / most / 63)
    offset, offset_bytes = _half(-least.min(axis=1) / 63)
    scales = _codes((groups.max(axis=2) - least) / most / scale, 0, 63)
    offsets = _codes(-least / offset, 0, 63)
    wide = scale * scales.astype(np.float32)
    lower = offset * offsets.astype(np.float32)
    codes = _codes((groups + lower[..., None]) / wide[..., None], 0, most)
    blocks = _blocks(len(values), nbytes)
    blocks[:, :2] = scale_bytes
    blocks[:, 2:4] = offset_bytes
    for j in range(4):
        _put(blocks, 4 + j, 0, scales[:, j] | scales[:, j + 4] >> 4 << 6)
        _put(blocks, 8 + j, 0, offsets[:, j] | offsets[:, j + 4] >> 4 << 6)
        _put(blocks, 12 + j, 0, scales[:, j + 4] & 15 | (offsets[:, j + 4] & 15) << 4)
    meant = wide[..., None] * codes.astype(np.float32) - lower[..., None]
    return blocks, codes.reshape(-1, 256), meant.reshape(values.shape)


def _four_bits(blocks: Bytes, start: int, codes: NDArray[np.int64]) -> None:
    """Put 4 bits each of 256 codes: 32 bytes hold two rounds of 32."""
    for i in range(256):
        _put(blocks, start + 32 * (i // 64) + i % 32, 4 * (i % 64 // 32), codes[:, i] & 15)


def q4_k(values: Numbers) -> Packed:
    blocks, codes, meant = _k_blocks(values, 144, 15)
    _four_bits(blocks, 16, codes)
    return blocks, meant


def q5_k(values: Numbers) -> Packed:
    blocks, codes, meant = _k_blocks(values, 176, 31)
    for i in range(256):
        _put(blocks, 16 + i % 32, i // 32, codes[:, i] >> 4)
    _four_bits(blocks, 48, codes)
    return blocks, meant


def q6_k(values: Numbers) -> Packed:
    groups = _groups(values, 16)
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 31 / 127)
    scales = _codes(np.abs(groups).max(axis=2) / 31 / scale, -128, 127)
    wide = scale * scales.astype(np.float32)
    codes = _codes(groups / wide[..., None], -32, 31)
    blocks = _blocks(len(values), 210)
    flat = codes.reshape(-1, 256) + 32
    for i in range(256):
        half, quarter, place = i // 128, i % 128 // 32, i % 32
        low = 64 * half + 32 * (quarter % 2) + place
        _put(blocks, low, 4 * (quarter // 2), flat[:, i] & 15)
        _put(blocks, 128 + 32 * half + place, 2 * quarter, flat[:, i] >> 4)
    for j in range(16):
        _put(blocks, 192 + j, 0, scales[:, j] & 255)
    blocks[:, 208:210] = scale_bytes
    return blocks, (wide[..., None] * codes.astype(np.float32)).reshape(values.shape)


def iq4_nl(values: Numbers) -> Packed:
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 113)
    codes = _nearest(values / scale, IQ4)
    blocks = _blocks(len(values), 18)
    blocks[:, :2] = scale_bytes
    _halves(blocks, 2, codes)
    return blocks, scale * IQ4[codes]


def iq4_xs(values: Numbers) -> Packed:
    groups = _groups(values, 32)
    scale, scale_bytes = _half(np.abs(values).max(axis=1) / 113 / 31)
    scales = _codes(np.abs(groups).max(axis=2) / 113 / scale, -32, 31)
    wide = scale * scales.astype(np.float32)
    codes = _nearest(groups / wide[..., None], IQ4)
    blocks = _blocks(len(values), 136)
    blocks[:, :2] = scale_bytes
    for j in range(8):
        _put(blocks, 2 + j // 4, 2 * (j % 4), scales[:, j] + 32 >> 4)
        _put(blocks, 4 + j // 2, 4 * (j % 2), scales[:, j] + 32 & 15)
    flat = codes.reshape(-1, 256)
    for i in range(256):
        _put(blocks, 8 + 16 * (i // 32) + i % 16, 4 * (i % 32 // 16), flat[:, i])
    return blocks, (wide[..., None] * IQ4[codes]).reshape(values.shape)


def mxfp4(values: Numbers) -> Packed:
    exponents = np.floor(np.log2(np.abs(values).max(axis=1))).astype(np.int64) - 2
    scale = np.exp2(exponents).astype(np.float32)[:, None]
    codes = _nearest(values / scale, FP4)
    blocks = _blocks(len(values), 17)
    blocks[:, 0] = exponents + 127
    _halves(blocks, 1, codes)
    return blocks, scale * FP4[codes]


PACK: dict[int, tuple[str, int, Callable[[Numbers], Packed]]] = {
    2: ("Q4_0", 32, q4_0),
    3: ("Q4_1", 32, q4_1),
    6: ("Q5_0", 32, q5_0),
    7: ("Q5_1", 32, q5_1),
    8: ("Q8_0", 32, q8_0),
    10: ("Q2_K", 256, q2_k),
    11: ("Q3_K", 256, q3_k),
    12: ("Q4_K", 256, q4_k),
    13: ("Q5_K", 256, q5_k),
    14: ("Q6_K", 256, q6_k),
    20: ("IQ4_NL", 32, iq4_nl),
    23: ("IQ4_XS", 256, iq4_xs),
    39: ("MXFP4", 32, mxfp4),
}
"""By the type's number in a file: its name, the numbers of a block, and what packs them."""
