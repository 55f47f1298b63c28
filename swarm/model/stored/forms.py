"""What a packed parameter is made of: matrices as they are stored, stacked, joined or turned.

transformers' loader stacks the matrices of experts, joins gates with up-projections and turns some
around. These forms remember what was asked for and leave the bytes alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from swarm.model.stored.layout import Layout

# How many weights are widened at a time: as many as stay in the cache of a core. A GPU is faster at
# few large operations.
CHUNK = 1 << 18
GPU_CHUNK = 1 << 24

Change = Callable[[torch.Tensor], torch.Tensor]


class Form(ABC):
    """A matrix [rows, columns], or several of equal shape [n, rows, columns].

    Attributes:
        shape: of the wide tensor.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the stored tensors."""

    @abstractmethod
    def map(self, change: Change) -> "Form":
        """Return the same form of changed tensors, such as copies on another device."""

    @abstractmethod
    def at(self, index: int) -> "Form":
        """Return one matrix of several."""

    @abstractmethod
    def widen(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the wide tensor."""

    def turned(self) -> "Form":
        """Return the form whose last two dimensions are exchanged."""
        return Turned(self)

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply with a matrix: inputs [..., columns] -> [..., rows], in the inputs' dtype."""
        return functional.linear(inputs, self.widen(inputs.dtype), bias)


@dataclass(frozen=True, eq=False)
class Matrix(Form):
    """One matrix as it is stored."""

    layout: Layout
    parts: Mapping[str, torch.Tensor]
    shape: tuple[int, ...]

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from self.parts.values()

    def map(self, change: Change) -> Form:
        parts = {name: change(part) for name, part in self.parts.items()}
        return Matrix(self.layout, parts, self.shape)

    def at(self, index: int) -> Form:
        raise IndexError("it is one matrix")

    def widen(self, dtype: torch.dtype) -> torch.Tensor:
        rows, columns = self.shape
        return self.layout.widen(self.parts, (rows, columns), dtype)

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        rows, columns = self.shape
        chunk = CHUNK if inputs.device.type == "cpu" else GPU_CHUNK
        unit = max(self.layout.rows_of(part) for part in self.parts)  # a multiple of the others
        count = max(1, chunk // columns // unit) * unit
        if count >= rows:
            return super().linear(inputs, bias)
        outputs = []
        for start in range(0, rows, count):
            stop = min(start + count, rows)
            own = None if bias is None else bias[start:stop]
            outputs.append(functional.linear(inputs, self._widen(start, stop, inputs.dtype), own))
        return torch.cat(outputs, dim=-1)

    def _widen(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the rows [start, stop), which begin and end with a row of each part."""
        parts = {}
        for name, part in self.parts.items():
            rows = self.layout.rows_of(name)
            parts[name] = part[start // rows : -(-stop // rows)] if rows else part
        return self.layout.widen(parts, (stop - start, self.shape[1]), dtype)


@dataclass(frozen=True, eq=False)
class Stack(Form):
    """Several matrices of equal shape."""

    forms: tuple[Form, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.forms), *self.forms[0].shape)

    def tensors(self) -> Iterator[torch.Tensor]:
        for form in self.forms:
            yield from form.tensors()

    def map(self, change: Change) -> Form:
        return Stack(tuple(form.map(change) for form in self.forms))

    def at(self, index: int) -> Form:
        return self.forms[index]

    def widen(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.stack([form.widen(dtype) for form in self.forms])


@dataclass(frozen=True, eq=False)
class Joined(Form):
    """Forms whose rows follow each other."""

    forms: tuple[Form, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *before, _, columns = self.forms[0].shape
        return (*before, sum(form.shape[-2] for form in self.forms), columns)

    def tensors(self) -> Iterator[torch.Tensor]:
        for form in self.forms:
            yield from form.tensors()

    def map(self, change: Change) -> Form:
        return Joined(tuple(form.map(change) for form in self.forms))

    def at(self, index: int) -> Form:
        return Joined(tuple(form.at(index) for form in self.forms))

    def widen(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.cat([form.widen(dtype) for form in self.forms], dim=-2)

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        rows = [form.shape[-2] for form in self.forms]
        biases = torch.split(bias, rows) if bias is not None else [None] * len(rows)
        outputs = (form.linear(inputs, own) for form, own in zip(self.forms, biases, strict=True))
        return torch.cat(list(outputs), dim=-1)


@dataclass(frozen=True, eq=False)
class Turned(Form):
    """A form whose last two dimensions are exchanged."""

    form: Form

    @cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *before, rows, columns = self.form.shape
        return (*before, columns, rows)

    def tensors(self) -> Iterator[torch.Tensor]:
        return self.form.tensors()

    def map(self, change: Change) -> Form:
        return Turned(self.form.map(change))

    def at(self, index: int) -> Form:
        return Turned(self.form.at(index))

    def widen(self, dtype: torch.dtype) -> torch.Tensor:
        return self.form.widen(dtype).transpose(-1, -2)

    def turned(self) -> Form:
        return self.form
