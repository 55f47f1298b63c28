"""A weight of a checkpoint that is stored packed: its layout, and how its matrices are arranged."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm.model.stored.forms import Form, Matrix, Stack, Turned
from swarm.model.stored.layout import DTYPES, Layout
from swarm.model.stored.packed import PackedTensor


@dataclass(frozen=True)
class PackedWeight:
    """How one weight is stored.

    Attributes:
        shape: of one matrix, [rows, columns], as the layout means it.
        count: how many matrices there are, one behind the other in each part; None for one alone.
        turned: whether the model has the rows where the layout has the columns.
    """

    layout: Layout
    shape: tuple[int, int]
    count: int | None = None
    turned: bool = False

    @property
    def wide_shape(self) -> tuple[int, ...]:
        """The shape of the weight in the model."""
        rows, columns = self.shape
        shape = (columns, rows) if self.turned else (rows, columns)
        return shape if self.count is None else (self.count, *shape)

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes(self.shape) * (self.count or 1)

    def pack(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> PackedTensor:
        """Return the weight of these tensors, one for each part, to be widened to a dtype."""
        form: Form
        if self.count is None:
            form = Matrix(self.layout, self._shaped(parts), self.shape)
        else:
            each = range(self.count)
            matrices = (self._shaped({name: parts[name][i] for name in parts}) for i in each)
            form = Stack(tuple(Matrix(self.layout, own, self.shape) for own in matrices))
        return PackedTensor(Turned(form) if self.turned else form, dtype)

    def empty(self, dtype: torch.dtype) -> PackedTensor:
        """Return the weight without its content, on the meta device."""
        before = () if self.count is None else (self.count,)
        parts = {
            name: torch.empty((*before, *part.shape), dtype=DTYPES[part.dtype], device="meta")
            for name, part in self.layout.shapes(self.shape).items()
        }
        return self.pack(parts, dtype)

    def _shaped(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        shapes = self.layout.shapes(self.shape)
        return {name: parts[name].reshape(part.shape) for name, part in shapes.items()}
