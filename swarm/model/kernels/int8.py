"""Products of int8 matrices on this computer's CPU, and which of them is the fastest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from swarm.model.kernels.measuring import is_hopeless, least_in_turn_s
from swarm.model.kernels.rounding import MOST_FACTOR

FEW = 16  # rows that are tried first
SAMPLE = 1 << 13  # rows that are measured: too many for the caches near the cores
MEASURED_ROWS = 8  # of a frame while windows are in flight
REPEATS = 5
# A later way must be faster than the ones before it by this factor. Where another program uses the
# matrix instructions of the same core, the first one takes up to twice as long for seconds.
WORTH = 2.0


class Int8Product(Protocol):
    """A matrix of int8, ready to be multiplied."""

    def __call__(self, factors: Tensor) -> Tensor:
        """Return the product with each of ``[m, columns]`` int8, as ``[m, rows]`` float32.

        Factors are at most `MOST_FACTOR` in absolute value. Each number of the product is a sum of
        products of whole numbers, rounded once.
        """
        ...


Pack = Callable[[Tensor], Int8Product]
"""Make a matrix ``[rows, columns]`` of int8 ready."""


@dataclass(frozen=True)
class Plain:
    """torch's own int8 product, which reads the matrix as it is."""

    matrix: Tensor

    def __call__(self, factors: Tensor) -> Tensor:
        return torch._int_mm(self.matrix, factors.t().contiguous()).t().float()


class Packed:
    """oneDNN's, from a copy that is laid out for this CPU's instructions.

    Factors are shifted to uint8, which all CPUs multiply by int8; oneDNN takes the shift out of the
    sums. Factors of int8 would be right and fast with AMX alone. Without it, oneDNN multiplies them
    by its reference code, 10,000 times as slowly, or by instructions that saturate.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(matrix, None)
        self._ones = torch.ones(len(matrix))
        self._zeros = torch.zeros(len(matrix), dtype=torch.long)

    def __call__(self, factors: Tensor) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            factors.add(MOST_FACTOR).view(torch.uint8),  # 128 is -128 until it is viewed
            1.0,
            MOST_FACTOR,
            self._packed,
            self._ones,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product


PACKS: tuple[Pack, ...] = (Packed, Plain)


def fastest(weight: Tensor, most: int, terms: int) -> Pack | None:
    """Return the way to multiply that is the fastest here, or None if float32 is faster.

    Takes a fraction of a second. A way that is not exact on this computer is not considered: some
    instructions of older CPUs saturate.

    Args:
        weight: the first rows of the float32 matrix that int8 stands for.
        most: the largest absolute value in a factor.
        terms: rows of factors for each row of float32.
    """
    sample = weight[:SAMPLE]
    rows = torch.ones(MEASURED_ROWS, sample.shape[-1], dtype=sample.dtype)
    ways = {
        pack: product
        for pack in PACKS
        if (product := _product_of(pack, sample.shape, most, terms)) is not None
    }
    works = [lambda: torch.nn.functional.linear(rows, sample), *ways.values()]
    float32_s, *times_s = least_in_turn_s(works, REPEATS)
    chosen = None
    best_s = float("inf")
    for pack, took_s in zip(ways, times_s, strict=True):
        if took_s < float32_s and took_s * WORTH < best_s:
            best_s = took_s
            chosen = pack
    return chosen


def _product_of(
    pack: Pack, shape: torch.Size, most: int, terms: int
) -> Callable[[], object] | None:
    """Return a product to measure; None if this computer or this torch has none that is exact."""
    try:
        if not _is_exact(pack, shape[-1], most) or _is_hopeless(pack, shape[-1], terms):
            return None
        product = pack(torch.ones(shape, dtype=torch.int8))
        factors = torch.ones(terms * MEASURED_ROWS, shape[-1], dtype=torch.int8)
        product(factors)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return None
    return lambda: product(factors)


def _is_hopeless(pack: Pack, columns: int, terms: int) -> bool:
    """Return whether a few rows take so long that more of them should not be measured."""
    product = pack(torch.ones(FEW, columns, dtype=torch.int8))
    factors = torch.ones(terms * MEASURED_ROWS, columns, dtype=torch.int8)
    rows = torch.ones(MEASURED_ROWS, columns)
    weight = torch.ones(FEW, columns)
    return is_hopeless(lambda: product(factors), lambda: torch.nn.functional.linear(rows, weight))


def _is_exact(pack: Pack, columns: int, most: int) -> bool:
    """Return whether the largest sums, of either sign, come out right."""
    signs = torch.tensor([[1, 1], [1, -1], [-1, -1]]).repeat(1, (columns + 1) // 2)[:, :columns]
    matrix = (signs * 127).to(torch.int8)
    factors = (signs * most).to(torch.int8)
    expected = (factors.double() @ matrix.double().t()).float()
    return torch.equal(pack(matrix)(factors), expected)
