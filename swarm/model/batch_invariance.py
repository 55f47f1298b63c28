"""Batch invariance: in 16 bits on a CPU, a token's states do not depend on the rest of its frame.

A token that goes through a chain alone and one that goes in a window of nine would take their sums
in different orders. In 16 bits that shows: of two tokens that are almost equally likely, drafts
would let the other one win. Four things keep the order the same, in frames of up to 32 tokens:

- *Whole vectors of rows.* Sums over the rows of a text are taken 16 or 32 rows at a time, and in
  another way over those that are left. So keys and values go on with zeros to a whole number of
  vectors: `padded_rows`.
- *Never a single row.* A product with one row has kernels of its own. It is computed with two equal
  ones: `pair_rows` for linear layers, `needs_pair` for attention.
- *Each line of a tree by itself.* Rows of other branches would lie between those that a token sees.
  So it attends to a copy of its own line's rows, one after the other (`swarm.model.masks.Lines`).
- *Never more than 32 rows beside a frame.* With more, oneDNN chooses other kernels. So the longer
  frames of a batch, such as prompts, run by themselves, and the others 32 rows at a time: `groups`.

GPUs choose kernels by size throughout. In 32 bits the difference is far below what decides between
two tokens.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

VECTOR_ROWS = 32
MOST_ROWS = 32  # of one product, in which all frames are short


def rounds_visibly(tensor: Tensor) -> bool:
    """Return whether products with this tensor show the order of their sums, and we choose it."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.bfloat16, torch.float16)


def padded_rows(rows: int) -> int:
    """Return how many rows the vectors have that `rows` rows begin."""
    return -(-rows // VECTOR_ROWS) * VECTOR_ROWS


def groups(rows: Sequence[int]) -> list[list[int]]:
    """Return which frames of a batch run at once: their indices, in groups.

    Args:
        rows: of each frame.
    """
    short: list[list[int]] = []
    long: list[int] = []
    room = 0
    for index, count in enumerate(rows):
        if count > MOST_ROWS:
            long.append(index)
            continue
        if count > room:
            short.append([])
            room = MOST_ROWS
        short[-1].append(index)
        room -= count
    return [*short, long] if long else short


def needs_pair(rows: Tensor, factor: Tensor) -> bool:
    """Return whether rows [..., n, width] are a single one that must not be multiplied alone."""
    return rows.shape[-2] == 1 and rounds_visibly(factor)


def pair_rows(model: nn.Module) -> None:
    """Make linear layers multiply a single row as two, where that is needed."""
    for layer in model.modules():
        if type(layer) is nn.Linear and rounds_visibly(layer.weight):
            layer.forward = partial(_multiply, layer)  # type: ignore[method-assign]


def _multiply(layer: nn.Linear, rows: Tensor) -> Tensor:
    if rows.dim() < 2 or rows.numel() != rows.shape[-1]:
        return linear(rows, layer.weight, layer.bias)
    two = torch.cat((rows, rows), dim=-2)  # as an expanded view it would take many times as long
    return linear(two, layer.weight, layer.bias)[..., :1, :]
