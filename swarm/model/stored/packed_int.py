"""Integers of 4 or 8 bits in words of 32, in groups along the rows: ``pack-quantized``.

This is the format of compressed-tensors (https://github.com/vllm-project/compressed-tensors,
``compressors/pack_quantized``), in which Kimi K2 is published. The lowest bits of a word hold the
first column. Codes are unsigned: ``weight = (code - zero point) * scale``, and without zero points
the middle code (8 of 16) is zero. Zero points are packed like the codes, but along the columns of
their matrix [rows, groups]. ``weight_g_idx`` tells the group of each column where columns were
sorted before they were grouped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.folder import Stored
from swarm.model.stored.layout import Layout
from swarm.model.stored.method import GROUPS, ZERO_POINT
from swarm.model.stored.nibbles import SIGNED, UNSIGNED, unpack_nibbles
from swarm.model.stored.scales import as_float32

WORD_BITS = 32


@dataclass(frozen=True)
class PackedInt(Layout):
    """A matrix of integers, packed in words along its rows.

    Attributes:
        bits: of an integer, 4 or 8.
        group: columns that share a scale; None for all of them.
        scale_dtype: as safetensors calls it.
        zero_points: whether there are any.
        sorted_columns: whether columns name their groups.
        zero_offset: what is added to stored zero points.
    """

    bits: int
    group: int | None
    scale_dtype: str
    zero_points: bool = False
    sorted_columns: bool = False
    zero_offset: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"int{self.bits}, one scale for {self.group or 'a row'}"

    @property
    def parts(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.shapes((0, 0)))

    @property
    def per_word(self) -> int:
        return WORD_BITS // self.bits

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        rows, columns = shape
        groups = columns // self.group if self.group else 1
        shapes = {
            "weight_packed": Stored("I32", (rows, columns // self.per_word)),
            "weight_scale": Stored(self.scale_dtype, (rows, groups)),
        }
        if self.zero_points:
            shapes[ZERO_POINT] = Stored("I32", (rows // self.per_word, groups))
        if self.sorted_columns:
            shapes[GROUPS] = Stored("I32", (columns,))
        return shapes

    def rows_of(self, part: str) -> int:
        return {ZERO_POINT: self.per_word, GROUPS: 0}.get(part, 1)

    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        codes = self._unpack(parts["weight_packed"], signed=not self.zero_points)
        scales = as_float32(parts["weight_scale"])
        zeros = None
        if self.zero_points:
            zeros = self._unpack(parts[ZERO_POINT].T.contiguous(), signed=False).T
            zeros = zeros + self.zero_offset
        if self.sorted_columns:
            own = parts[GROUPS]
            scales = scales.index_select(1, own)
            zeros = zeros if zeros is None else zeros.index_select(1, own)
        groups = codes.view(shape[0], scales.shape[1], -1)
        if zeros is not None:
            groups.sub_(zeros.unsqueeze(-1))
        return groups.mul_(scales.unsqueeze(-1)).view(shape).to(dtype)

    def _unpack(self, words: torch.Tensor, signed: bool) -> torch.Tensor:
        """Return the codes in float32: int32 [rows, n] -> [rows, n * codes in a word]."""
        # The lowest byte first, as safetensors stores them. One word a row may have any stride.
        packed = words.flatten().view(torch.uint8).view(len(words), -1)
        if self.bits == 4:
            return unpack_nibbles(packed, SIGNED if signed else UNSIGNED)
        codes = packed.to(torch.float32)
        return codes.sub_(128) if signed else codes
