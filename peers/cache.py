"""The keys and values of sessions: one `KVCache` a session, and the `PackedCache` that shows several to one forward."""

import torch
from transformers import Cache

from swarm.errors import SpanError

BLOCK_TOKENS = 64  # room grows in whole blocks, so that decoding does not allocate at every token


class KVCache:
    """Keys and values of one session in the layers [first, last), for `length` positions.

    Rollback is `truncate`. Sliding-window layers keep all positions too (their mask applies the window), so a
    rollback always finds what it goes back to. To be used by one thread at a time.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.length = 0
        self._keys: list[torch.Tensor | None] = [None] * (last - first)  # [kv heads, room, head dim]
        self._values: list[torch.Tensor | None] = [None] * (last - first)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises SpanError when that is negative or beyond the end."""
        if not 0 <= length <= self.length:
            raise SpanError(self.first, self.last, f"a cache of {self.length} positions cannot go back to {length}")
        self.length = length

    def advance(self, tokens: int) -> None:
        """Make the `tokens` positions that every layer has written part of the session."""
        self.length += tokens

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values [kv heads, n, head dim] of absolute `layer` at the positions after `length`.

        Returns views of everything up to the last of them, [kv heads, length + n, head dim]. Until `advance` the new
        positions do not count, so a forward that fails half-way leaves the session as it was.
        """
        slot = layer - self.first
        start = self.length
        end = start + key.shape[1]
        keys, values = self._keys[slot], self._values[slot]
        if keys is None or values is None or keys.shape[1] < end:
            keys = self._keys[slot] = _grown(keys, key, start, end)
            values = self._values[slot] = _grown(values, value, start, end)
        keys = keys[:, :end]
        values = values[:, :end]
        keys[:, start:] = key
        values[:, start:] = value
        return keys, values

    @property
    def nbytes(self) -> int:
        """Memory held, room for growth included."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values) if tensor is not None)

    @property
    def nbytes_per_token(self) -> int:
        """Memory of one position in all layers; 0 before the first forward."""
        return sum(tensor.nbytes // tensor.shape[1] for tensor in (*self._keys, *self._values) if tensor is not None)


def _grown(old: torch.Tensor | None, new: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    """Room for `needed` positions and at least an eighth more than before, holding the `used` positions of `old`."""
    # Growing by a share of the length keeps the copying per token constant; an eighth keeps the waste small.
    room = max(needed, 0 if old is None else old.shape[1] * 9 // 8)
    room = -(-room // BLOCK_TOKENS) * BLOCK_TOKENS
    grown = new.new_empty((new.shape[0], room, new.shape[2]))
    if old is not None:
        grown[:, :used] = old[:, :used]
    return grown


class PackedCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """What the layers see as their cache during one forward over the tokens of several sessions.

    The row holds `counts[i]` tokens of `caches[i]`, side by side. `update` gives every session its own tokens and
    leaves the sessions' full keys and values in `pending`, where `peers.attention` takes them.
    """

    def __init__(self, caches: list[KVCache], counts: list[int]) -> None:
        self.layers: list[object] = []  # the base class's methods find no layers of their own
        self.layer_class_to_replicate = None
        self.offloading = False
        self.caches = caches
        self.counts = counts
        self.starts = [cache.length for cache in caches]
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.returned: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [1, kv heads, total, head dim]. With a single session, returns all its keys and values, so that a
        model which attends by its own code can do so; else returns what came, for only `peers.attention` can go on.
        """
        if len(self.caches) == 1:
            keys, values = self.caches[0].write(layer_idx, key_states[0], value_states[0])
            self.pending = [(keys, values)]
            key_states, value_states = keys.unsqueeze(0), values.unsqueeze(0)
        else:
            self.pending = [
                cache.write(layer_idx, key, value)
                for cache, key, value in zip(
                    self.caches,
                    key_states[0].split_with_sizes(self.counts, dim=1),
                    value_states[0].split_with_sizes(self.counts, dim=1),
                    strict=True,
                )
            ]
        self.returned = key_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before this forward; means something only with a single session."""
        return self.starts[0]

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.starts[0]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of the keys, for the masks of a model that attends by its own code."""
        return self.starts[0] + query_length, 0
