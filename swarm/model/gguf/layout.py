"""How a packed weight of a GGUF file lies in memory: as in the file, rows of blocks in bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.folder import Stored
from swarm.model.gguf.blocks import WIDEN
from swarm.model.gguf.types import TensorType
from swarm.model.stored.layout import Layout

# Values that are widened at once: on a CPU, as many as its cache holds while they are worked out.
CHUNK = {"cpu": 1 << 20}
LARGEST_CHUNK = 1 << 24


@dataclass(frozen=True)
class Blocks(Layout):
    """Rows of blocks of one type."""

    type: TensorType

    parts = ("weight",)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"GGUF's {self.type.name}"

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        rows, columns = shape
        return {"weight": Stored("U8", (rows, self.type.row_bytes(columns)))}

    def widen(
        self, parts: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        return widen(parts["weight"], self.type, dtype)


def widen(packed: Tensor, kind: TensorType, dtype: torch.dtype) -> Tensor:
    """Return what packed rows stand for: uint8 ``[..., row_bytes]`` to ``[..., columns]``."""
    columns = packed.shape[-1] // kind.block_bytes * kind.block
    blocks = packed.reshape(-1, kind.block_bytes)
    widened = torch.empty(len(blocks), kind.block, dtype=dtype, device=packed.device)
    step = max(1, CHUNK.get(packed.device.type, LARGEST_CHUNK) // kind.block)
    for start in range(0, len(blocks), step):
        widened[start : start + step] = WIDEN[kind.name](blocks[start : start + step])
    return widened.reshape(*packed.shape[:-1], columns)
