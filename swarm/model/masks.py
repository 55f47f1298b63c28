"""What tokens may see: the model's rule (causal, sliding, chunked) over the tree of tokens that a
session holds.

The mask function of this module is registered with transformers. It keeps the rule of a mask
instead of drawing it, because every session of a packed row needs its own drawing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.masking_utils import causal_mask_function

from swarm.model.device import upload
from swarm.wire.token_tree import Placement


class NotPackable(Exception):
    """This model's attention asks for something that the packed attention does not do.

    Never leaves `swarm.model`.
    """


@dataclass(frozen=True, eq=False)
class View:
    """What the `count` tokens of one session see in one forward, in the rows of its cache.

    Attributes:
        start: rows held before.
        trunk: rows from 0 on that all of the tokens see; there, row and position are the same.
        seen: bool [count, start + count - trunk], on the device: which of the rows behind the trunk
            each token sees. None where each sees all rows before its own.
    """

    start: int
    count: int
    trunk: int
    seen: torch.Tensor | None

    @classmethod
    def of(cls, placement: Placement, count: int, device: torch.device) -> "View":
        """What `count` tokens see that go where the placement says."""
        start, trunk = placement.start, placement.trunk
        if placement.sees is None:
            return cls(start, count, start, None)
        return cls(
            start,
            count,
            trunk,
            upload(matrix(placement.sees, columns=start + count - trunk), device),
        )


def matrix(sees: Sequence[int], columns: int) -> torch.Tensor:
    """Bool [len(sees), columns]: column `i` of a row is bit `i` of the number."""
    size = -(-columns // 8)
    packed = np.frombuffer(
        b"".join(bits.to_bytes(size, "little") for bits in sees), np.uint8
    ).reshape(-1, size)
    return torch.from_numpy(
        np.unpackbits(packed, axis=1, count=columns, bitorder="little").view(np.bool_)
    )


class MaskRule:
    """Which positions may see which, for one kind of layer in one forward.

    `allows(batch, head, query positions, key positions)` is broadcast over index tensors, as
    transformers defines it. Drawn masks are kept, for all layers of a kind share them.
    """

    def __init__(self, allows: Callable[..., torch.Tensor]) -> None:
        self._allows = allows
        self._plain = allows is causal_mask_function
        self._drawn: dict[tuple[int, int], torch.Tensor | None] = {}

    def draw(
        self, session: int, view: View, repeat: int, like: torch.Tensor
    ) -> torch.Tensor | None:
        """Additive mask [repeat * count, start + count] in the dtype of `like`: query heads of a
        group lie one after another. None when the queries may see everything.
        """
        if view.count == 1 and self._plain and view.seen is None:
            return None
        key = (session, repeat)
        if key not in self._drawn:
            shape = (view.count, view.start + view.count)
            mask = torch.zeros(shape, dtype=like.dtype, device=like.device)
            # every row of the trunk, and no other that is not seen
            if view.seen is not None and self._plain:
                mask[:, view.trunk :].masked_fill_(~view.seen, float("-inf"))
            else:
                allowed = (
                    self._along_rows(view, like.device)
                    if view.seen is None
                    else self._along_paths(view)
                )
                mask.masked_fill_(~allowed, float("-inf"))
            self._drawn[key] = mask.repeat(repeat, 1) if repeat > 1 else mask
        return self._drawn[key]

    def _along_rows(self, view: View, device: torch.device) -> torch.Tensor:
        """Where a row is its token's position."""
        rows = torch.arange(view.start + view.count, device=device)
        return self._allows(0, 0, rows[view.start :, None], rows[None, :])

    def _along_paths(self, view: View) -> torch.Tensor:
        """Where the position of a row is how many rows on the way to it are seen.

        Of rows that are not seen, which have none, anything may be said.
        """
        assert view.seen is not None
        behind = view.seen.cumsum(1) + (view.trunk - 1)
        own = behind[:, -1:]  # a token is the last one that it sees
        trunk = torch.arange(view.trunk, device=view.seen.device)[None, :]
        return torch.cat(
            (self._allows(0, 0, own, trunk), self._allows(0, 0, own, behind) & view.seen), dim=1
        )


def keep_rule(
    *args: Any, mask_function: Callable[..., torch.Tensor] = causal_mask_function, **kwargs: Any
) -> MaskRule:
    """The mask function: called by transformers once a forward for every kind of layer.

    Raises NotPackable.
    """
    if kwargs.get("attention_mask") is not None or kwargs.get("use_vmap"):
        raise NotPackable("its masks depend on more than positions")
    return MaskRule(mask_function)
