"""Spans that lie about their outputs, to measure and to test how lies are noticed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work

GROUP = 64  # weights that share a scale, as is usual for 4 bits

# (inputs, honest outputs) of a work -> the outputs that the span returns instead
Lie = Callable[[Tensor, Tensor], Tensor]
When = Callable[[Work], bool]


def noise(_: Tensor, outputs: Tensor) -> Tensor:
    """Return random numbers of the right shape and size."""
    return torch.randn_like(outputs) * outputs.float().std().to(outputs.dtype)


def zeros(_: Tensor, outputs: Tensor) -> Tensor:
    return torch.zeros_like(outputs)


def unchanged(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the inputs; zeros for token ids."""
    return inputs.to(outputs.dtype) if inputs.is_floating_point() else torch.zeros_like(outputs)


def always(_: Work) -> bool:
    return True


def small_frames(work: Work) -> bool:
    """Return whether a work may be a window: neither a prompt nor an audit that looks like one."""
    return work.inputs.shape[0] <= 8


class LyingSpan(Span):
    """A span that returns something else for some works.

    Attributes:
        plan: whether it lies in each of the next works, if ``when`` allows it; it always lies once
            the plan is used up.
    """

    def __init__(self, span: Span, lie: Lie, when: When = always) -> None:
        self.__dict__.update(span.__dict__)
        self._span = span
        self._lie = lie
        self._when = when
        self.plan: list[bool] = []

    def _lies(self, work: Work) -> bool:
        planned = self.plan.pop(0) if self.plan else True
        return planned and self._when(work)

    def forward(
        self, batch: Sequence[Work], first: int | None = None, last: int | None = None
    ) -> list[Tensor]:
        outputs = self._span.forward(batch, first, last)
        return [
            self._lie(work.inputs, output) if self._lies(work) else output
            for work, output in zip(batch, outputs, strict=True)
        ]


class SkippingSpan(Span):
    """A span that computes only the first half of its layers."""

    def __init__(self, span: Span) -> None:
        self.__dict__.update(span.__dict__)
        self._span = span

    def forward(
        self, batch: Sequence[Work], first: int | None = None, last: int | None = None
    ) -> list[Tensor]:
        first = self._span.first if first is None else first
        last = self._span.last if last is None else last
        return self._span.forward(batch, first, first + (last - first) // 2)


def other_weights(
    checkpoint: Checkpoint, first: int, last: int, dtype: torch.dtype = torch.float32
) -> Span:
    """Return a span with another model's weights: the same values, in other places."""
    span = Span.load(checkpoint, first, last, dtype=dtype)
    for matrix in _matrices(span):
        matrix.data = matrix.data.roll(1, dims=0)
    return span


def cheap_weights(
    checkpoint: Checkpoint, first: int, last: int, dtype: torch.dtype = torch.float32, bits: int = 4
) -> Span:
    """Return a span with weights of fewer bits, which the peer declares as ``dtype``.

    They are rounded to the nearest of ``2 ** bits`` values for each group of 64.
    """
    span = Span.load(checkpoint, first, last, dtype=dtype)
    for matrix in _matrices(span):
        matrix.data = _rounded(matrix.data, bits)
    return span


def _matrices(span: Span) -> list[torch.nn.Parameter]:
    return [parameter for parameter in span._layers.parameters() if parameter.ndim == 2]


def _rounded(matrix: Tensor, bits: int) -> Tensor:
    group = GROUP if matrix.shape[1] % GROUP == 0 else matrix.shape[1]
    groups = matrix.float().reshape(-1, group)
    least = groups.amin(1, keepdim=True)
    most = groups.amax(1, keepdim=True)
    step = ((most - least) / (2**bits - 1)).clamp_min(1e-12)
    rounded: Tensor = ((groups - least) / step).round() * step + least
    return rounded.reshape(matrix.shape).to(matrix.dtype)
