"""Attention masks: the model's rule (causal, sliding, chunked) over a session's tree of tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers.masking_utils import causal_mask_function

from swarm.model.batch_invariance import padded_rows
from swarm.model.device import upload
from swarm.wire.token_tree import Placement, set_bits


class NotPackable(Exception):
    """A model's attention needs something that packed attention cannot do.

    Never leaves `swarm.model`.
    """


@dataclass(frozen=True, eq=False)
class AttentionView:
    """The rows of its cache that one session's tokens see in one forward.

    Attributes:
        start: rows held before the forward.
        count: tokens in the forward.
        trunk: rows from 0 on that all tokens see; there, row and position are the same.
        seen: bool [count, start + count - trunk], on the device: which of the rows behind the trunk
            each token sees. None where each sees all rows before its own.
        lines: of a tree, if each is to be attended to by itself.
    """

    start: int
    count: int
    trunk: int
    seen: torch.Tensor | None
    lines: "Lines | None" = None

    @classmethod
    def of(
        cls, placement: Placement, count: int, device: torch.device, by_lines: bool = False
    ) -> "AttentionView":
        """Return the view of `count` tokens in the rows of a placement.

        Args:
            by_lines: whether the lines of a tree are attended to one by one. Each may copy all
                rows of the session.
        """
        start = placement.start
        trunk = placement.trunk
        if placement.sees is None:
            return cls(start, count, start, None)
        seen = upload(matrix(placement.sees, columns=start + count - trunk), device)
        lines = Lines.of(placement, device) if by_lines else None
        return cls(start, count, trunk, seen, lines)


@dataclass(frozen=True, eq=False)
class Line:
    """Tokens of a tree that follow each other, and the rows of the text that ends with them.

    Attributes:
        tokens: LongTensor [n], their indices in the frame.
        rows: LongTensor, the rows of the text in order, and others behind them up to a whole
            vector. None if they are the first rows anyway.
        view: of these rows alone.
    """

    tokens: torch.Tensor
    rows: torch.Tensor | None
    view: AttentionView

    def of(self, cached: torch.Tensor) -> torch.Tensor:
        """Return the rows [heads, n, width] of this line out of all rows of the session."""
        if self.rows is None:
            return cached[:, : padded_rows(self.view.start + self.view.count)]
        return cached.index_select(1, self.rows)


@dataclass(frozen=True, eq=False)
class Lines:
    """A frame's tree in lines, so that each token sees its rows where a plain text has them.

    Attributes:
        each: every token of the frame is in one of them.
        order: LongTensor [count], where the tokens are in all lines one after the other.
    """

    each: Sequence[Line]
    order: torch.Tensor

    @classmethod
    def of(cls, placement: Placement, device: torch.device) -> "Lines":
        """Part the tree of a placement: a token goes on with its parent's line, or begins one."""
        assert placement.sees is not None
        found: list[list[int]] = []
        ends: dict[int, list[int]] = {}  # by what the last token sees
        for token, sees in enumerate(placement.sees):
            parent = sees ^ 1 << placement.start - placement.trunk + token
            line = ends.pop(parent, [])
            if not line:
                found.append(line)
            line.append(token)
            ends[sees] = line
        order = torch.tensor([token for line in found for token in line]).argsort()
        each = [_line(placement, tokens, device) for tokens in found]
        return cls(each, upload(order, device))


def _line(placement: Placement, tokens: Sequence[int], device: torch.device) -> Line:
    assert placement.sees is not None
    sees, trunk = placement.sees[tokens[-1]], placement.trunk
    count = trunk + sees.bit_count()
    rows = None
    if sees & sees + 1:  # others lie between
        behind = [trunk + i for i in set_bits(sees)]
        filling = [0] * (padded_rows(count) - count)
        rows = upload(torch.tensor([*range(trunk), *behind, *filling]), device)
    start = count - len(tokens)
    view = AttentionView(start, len(tokens), start, None)
    return Line(upload(torch.tensor(tokens), device), rows, view)


def matrix(sees: Sequence[int], columns: int) -> torch.Tensor:
    """Return bool [len(sees), columns]: column `i` of a row is bit `i` of the number."""
    size = -(-columns // 8)
    content = b"".join(bits.to_bytes(size, "little") for bits in sees)
    packed = np.frombuffer(content, np.uint8).reshape(-1, size)
    unpacked = np.unpackbits(packed, axis=1, count=columns, bitorder="little")
    return torch.from_numpy(unpacked.view(np.bool_))


class MaskRule:
    """Which positions may see which, for one kind of layer in one forward.

    `allows(batch, head, query positions, key positions)` is broadcast over index tensors, as
    transformers defines it. Masks are kept: all layers of a kind share them. A layer that reads the
    mask itself gets that of all sessions by indexing, as it would a tensor's.

    Args:
        views: of the sessions of the packed row.
        device: of the layers.
    """

    def __init__(
        self,
        allows: Callable[..., torch.Tensor],
        views: Sequence[AttentionView],
        device: torch.device | None = None,
    ) -> None:
        self._allows = allows
        self._views = views
        self._device = device
        self._plain = allows is causal_mask_function
        self._drawn: dict[tuple[AttentionView, int], torch.Tensor | None] = {}
        self._whole: torch.Tensor | None = None

    def draw(
        self,
        view: AttentionView,
        repeat: int,
        like: torch.Tensor,
        chosen: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Return the additive mask [repeat * count, rows] in the dtype of `like`.

        None if the queries may see everything. Rows behind the last token may not be seen.

        Args:
            view: of one of the sessions, or of a line of its tree.
            repeat: query heads of a group, whose rows lie one after another.
            like: keys [kv heads, rows, d], of start + count rows and perhaps more behind them.
            chosen: bool [count, start + count], the rows that each token attends to of those that
                it may see; None for all.
        """
        mask = self._drawn_once(view, repeat, like)
        if chosen is None:
            return mask
        if mask is None:
            mask = torch.zeros((), dtype=like.dtype, device=chosen.device)
        chosen = _as_wide_as(chosen, like)
        return mask.masked_fill(~chosen.repeat(repeat, 1), float("-inf"))

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Return a part of the mask of all sessions, bool [1, 1, tokens, rows]; True is seen."""
        if self._whole is None:
            blocks = [self._allowed(view) for view in self._views]
            whole = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
            self._whole = whole[None, None]
        return self._whole[index]

    def _drawn_once(
        self, view: AttentionView, repeat: int, like: torch.Tensor
    ) -> torch.Tensor | None:
        whole = like.shape[1] == view.start + view.count
        if whole and view.count == 1 and self._plain and view.seen is None:
            return None
        key = (view, repeat)
        if key not in self._drawn:
            allowed = _as_wide_as(self._allowed(view), like)
            mask = torch.zeros(allowed.shape, dtype=like.dtype, device=allowed.device)
            mask.masked_fill_(~allowed, float("-inf"))
            self._drawn[key] = mask.repeat(repeat, 1) if repeat > 1 else mask
        return self._drawn[key]

    def _allowed(self, view: AttentionView) -> torch.Tensor:
        """Return which rows each token may see, bool [count, start + count]."""
        if view.seen is None:
            return self._along_rows(view)
        if self._plain:  # all rows of the trunk, and the rows that are seen behind it
            return pad(view.seen, (view.trunk, 0), value=True)
        return self._along_paths(view)

    def _along_rows(self, view: AttentionView) -> torch.Tensor:
        """Return what is allowed if a row is its token's position."""
        rows = torch.arange(view.start + view.count, device=self._device)
        return self._allows(0, 0, rows[view.start :, None], rows[None, :])

    def _along_paths(self, view: AttentionView) -> torch.Tensor:
        """Return what is allowed if a row's position is the number of seen rows on the way to it.

        Rows that are not seen have no position; they are never allowed.
        """
        assert view.seen is not None
        behind = view.seen.cumsum(1) + (view.trunk - 1)
        own = behind[:, -1:]  # the last row that a token sees is its own
        trunk = torch.arange(view.trunk, device=view.seen.device)[None, :]
        in_trunk = self._allows(0, 0, own, trunk)
        return torch.cat((in_trunk, self._allows(0, 0, own, behind) & view.seen), dim=1)


def _as_wide_as(seen: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return bool [count, rows of the keys]: rows behind those of `seen` are seen by none."""
    more = keys.shape[1] - seen.shape[1]
    return pad(seen, (0, more), value=False) if more else seen
