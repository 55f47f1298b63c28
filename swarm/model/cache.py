"""Keys and values: a `KVCache` for each session, a `PackedCache` for one forward over several."""

from collections.abc import Sequence

import torch
from transformers import Cache

from swarm.errors import SpanError
from swarm.model.device import upload
from swarm.model.masks import AttentionView
from swarm.wire.messages import MAX_SESSION_TOKENS
from swarm.wire.token_tree import Placement

BLOCK_TOKENS = 64  # room grows in whole blocks: decoding does not allocate at every token


class KVCache:
    """Keys and values of one session in the layers [first, last): one row a token, `length` rows.

    `place` does rollback and pruning. Sliding-window layers keep all rows too (their mask applies
    the window), so a rollback always finds its rows. There is never room for more than `limit`
    rows, which the session has reserved. Use it from one thread at a time.

    Args:
        dtype: of keys and values; None for that in which they are computed.
    """

    def __init__(
        self,
        first: int,
        last: int,
        limit: int = MAX_SESSION_TOKENS,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.first = first
        self.last = last
        self.limit = limit
        self.dtype = dtype
        self.length = 0
        self._placed: Placement | None = None  # the last placement, until `advance`
        # For each layer [kv heads, room, head dim].
        self._keys: list[torch.Tensor | None] = [None] * (last - first)
        self._values: list[torch.Tensor | None] = [None] * (last - first)

    def fits(self, placement: Placement, count: int = 0) -> bool:
        """Return whether the placement's rows are there, with `count` more within the limit."""
        start = placement.start
        keep = placement.keep
        moved_to = start - len(keep)
        kept = 0 <= moved_to <= start <= self.length and all(
            moved_to < row < self.length for row in keep
        )
        return (kept or placement is self._placed) and start + count <= self.limit

    def place(self, placement: Placement) -> None:
        """Make the rows before `placement.start` those that it keeps, and drop all others.

        Copies only the rows that move. The same placement may come again until `advance`, as it
        does after a forward that failed.

        Raises:
            SpanError: where rows are not there; nothing has changed then.
        """
        if placement is self._placed:
            return
        start = placement.start
        keep = placement.keep
        if not self.fits(placement):
            moved_rows = f"{len(keep)} of them moved"
            problem = f"a cache of {self.length} rows cannot keep {start}, {moved_rows}"
            raise SpanError(self.first, self.last, problem)
        written = [tensor for tensor in (*self._keys, *self._values) if tensor is not None]
        if keep and written:
            with torch.inference_mode():  # outside of it, a forward's tensors may not be written
                rows = upload(torch.tensor(keep), written[0].device)
                # All copies before all writes: a copy may run out of memory.
                moving = [tensor.index_select(1, rows) for tensor in written]
                for tensor, moved in zip(written, moving, strict=True):
                    tensor[:, start - len(keep) : start] = moved
        self.length = start
        self._placed = placement

    def advance(self, tokens: int) -> None:
        """Make the `tokens` rows that every layer has written part of the session."""
        self.length += tokens
        self._placed = None

    def write(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values [kv heads, n, head dim] of absolute `layer` after `length` rows.

        Until `advance` the new rows do not count: a forward that fails half-way leaves the session
        as it was.

        Returns:
            Views of all rows up to the last new one, [kv heads, length + n, head dim].
        """
        slot = layer - self.first
        start = self.length
        end = start + key.shape[1]
        keys = self._keys[slot]
        values = self._values[slot]
        if keys is None or values is None or keys.shape[1] < end:
            keys = self._keys[slot] = self._grown(keys, key, end)
            values = self._values[slot] = self._grown(values, value, end)
        keys = keys[:, :end]
        values = values[:, :end]
        keys[:, start:] = key
        values[:, start:] = value
        return keys, values

    def copy(self) -> "KVCache":
        """Return a cache that holds the same rows, for a text that parts from this one's."""
        same = KVCache(self.first, self.last, self.limit, self.dtype)
        same.length = self.length
        same._keys = [None if tensor is None else tensor.clone() for tensor in self._keys]
        same._values = [None if tensor is None else tensor.clone() for tensor in self._values]
        return same

    @property
    def nbytes(self) -> int:
        """Memory held, room for growth included."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values) if tensor is not None)

    @property
    def nbytes_per_token(self) -> int:
        """Memory of one row in all layers; 0 before the first forward."""
        return sum(
            tensor.nbytes // tensor.shape[1]
            for tensor in (*self._keys, *self._values)
            if tensor is not None
        )

    def _grown(self, old: torch.Tensor | None, new: torch.Tensor, needed: int) -> torch.Tensor:
        """Return a copy of `old` with room for `needed` rows, an eighth more if that is allowed."""
        # Growing by a share of the length keeps the copying per token constant; an eighth keeps
        # the waste small.
        room = max(needed, 0 if old is None else old.shape[1] * 9 // 8)
        room = min(-(-room // BLOCK_TOKENS) * BLOCK_TOKENS, self.limit)
        grown = new.new_empty((new.shape[0], room, new.shape[2]), dtype=self.dtype)
        if old is not None:
            grown[:, : self.length] = old[:, : self.length]
        return grown


class PackedCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """The cache that layers use in one forward over the tokens of several sessions.

    The packed row holds `views[i].count` tokens of `caches[i]`, side by side. `update` stores the
    tokens of every session in its own cache, and leaves the sessions' full keys and values in
    `pending` for `swarm.model.attention`.
    """

    def __init__(self, caches: Sequence[KVCache], views: Sequence[AttentionView]) -> None:
        self.layers: list[object] = []  # the base class's methods find no layers of their own
        self.layer_class_to_replicate = None
        self.offloading = False
        self.caches = caches
        self.views = views
        self.counts = [view.count for view in views]
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.returned: torch.Tensor | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [1, kv heads, total, head dim].

        Returns:
            With a single session, all its keys and values, for a model with its own attention code;
            otherwise the arguments: only `swarm.model.attention` can use several sessions.
        """
        if len(self.caches) == 1:
            keys, values = self.caches[0].write(layer_idx, key_states[0], value_states[0])
            self.pending = [(keys, values)]
            key_states = keys.unsqueeze(0)
            value_states = values.unsqueeze(0)
        else:
            split_keys = key_states[0].split_with_sizes(self.counts, dim=1)
            split_values = value_states[0].split_with_sizes(self.counts, dim=1)
            sessions = zip(self.caches, split_keys, split_values, strict=True)
            self.pending = [cache.write(layer_idx, key, value) for cache, key, value in sessions]
        self.returned = key_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before this forward; meaningful only with a single session."""
        return self.views[0].start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.views[0].start

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of the keys, for the masks of a model with its own attention code."""
        return self.views[0].start + query_length, 0
