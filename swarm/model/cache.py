"""What layers keep of tokens: a `KVCache` for each session, a `PackedCache` for one forward.

Of most layers that is keys and values, one row a token; of recurrent layers it is a state.
"""

import sys
from collections.abc import Iterator, Sequence
from inspect import signature

import torch
from torch import nn
from torch.nn.functional import pad
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import Cache

from swarm.errors import SpanError
from swarm.model.batch_invariance import padded_rows, rounds_visibly
from swarm.model.device import upload
from swarm.model.masks import AttentionView, NotPackable
from swarm.model.recurrent.interface import StateAccess
from swarm.model.recurrent.states import States
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.token_tree import Placement

CACHE_ARGUMENTS = ("past_key_values", "cache_params")  # names that decoders give their cache
BLOCK_TOKENS = 64  # room grows in whole blocks: decoding does not allocate at every token
# Names of rows.
KEYS = "keys"
VALUES = "values"
INDEX_KEYS = "index keys"


class KVCache:
    """What the layers [first, last) keep of one session: one row a token, `length` rows.

    A layer keeps a few named tensors of rows: keys and values; or, in their place, the latent that
    both are expanded from, and the part of a key that turns with the position; and the keys of an
    indexer, which chooses the rows to attend to. All of them roll back alike.

    `place` does rollback and pruning. Sliding-window layers keep all rows too (their mask applies
    the window), so a rollback always finds its rows. There is never room for more than `limit`
    rows, which the session has reserved. Use it from one thread at a time.

    Args:
        dtype: of all rows; None for that in which they are computed.
        states: of recurrent layers, if there are any. A rollback to a row between two of them makes
            the next forward begin before that row: see `begins`.
    """

    def __init__(
        self,
        first: int,
        last: int,
        limit: int = MAX_SESSION_TOKENS,
        dtype: torch.dtype | None = None,
        states: States | None = None,
    ) -> None:
        self.first = first
        self.last = last
        self.limit = limit
        self.dtype = dtype
        self.length = 0
        self.states = states
        self._placed: Placement | None = None  # the last placement, until `advance`
        # By layer, as the model counts them, and name: [heads, room, width].
        self._rows: dict[tuple[int, str], torch.Tensor] = {}

    @property
    def begins(self) -> int:
        """The row where the next forward has to begin: at the newest state, or behind all rows."""
        return self.length if self.states is None else self.states.row

    def replayed(self) -> torch.Tensor | None:
        """Return the inputs [n(, hidden)] of the rows from `begins` on; None if there are none."""
        return None if self.states is None else self.states.replayed()

    def catch_up(self, rows: int) -> None:
        """Count so many of these rows as computed again."""
        if self.states is not None:
            self.states.catch_up(rows)

    def fits(self, placement: Placement, count: int = 0) -> bool:
        """Return whether the placement's rows are there, with `count` more within the limit."""
        start = placement.start
        keep = placement.keep
        moved_to = start - len(keep)
        kept = 0 <= moved_to <= start <= self.length and all(
            moved_to < row < self.length for row in keep
        )
        if self.states is not None:
            kept = kept and not keep and self.states.reaches(start)
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
        written = list(self._rows.values())
        if keep and written:
            with torch.inference_mode():  # outside of it, a forward's tensors may not be written
                rows = upload(torch.tensor(keep), written[0].device)
                # All copies before all writes: a copy may run out of memory.
                moving = [tensor.index_select(1, rows) for tensor in written]
                for tensor, moved in zip(written, moving, strict=True):
                    tensor[:, start - len(keep) : start] = moved
        if self.states is not None:
            self.states.place(start, placement.trunk)
        self.length = start
        self._placed = placement

    def advance(self, tokens: int, inputs: torch.Tensor | None = None) -> None:
        """Make the `tokens` rows that every layer has written part of the session.

        Args:
            inputs: of these rows, [tokens(, hidden)]; needed where there are states.
        """
        if self.states is not None:
            assert inputs is not None  # a rollback may need them again
            self.states.advance(inputs)
        self.length += tokens
        self._placed = None

    def write(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, pads: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [kv heads, n, head dim] of a layer: see `append`.

        Args:
            pads: whether the views may go on with zeros, which no token may see, so that sums over
                rows are rounded alike in every frame.
        """
        pads = pads and rounds_visibly(key)
        return self.append(layer, KEYS, key, pads), self.append(layer, VALUES, value, pads)

    def append(self, layer: int, name: str, new: torch.Tensor, pads: bool = False) -> torch.Tensor:
        """Store rows [heads, n, width] of absolute `layer` from row `begins` on.

        Until `advance` the new rows do not count: a forward that fails half-way leaves the session
        as it was.

        Returns:
            A view of all rows of this name up to the last new one, [heads, begins + n, width]; with
            `pads`, of zeros behind it too, as many as `padded_rows` says.
        """
        key = (layer, name)
        end = self.begins + new.shape[1]
        rows = self._rows.get(key)
        if rows is None or rows.shape[1] < end:
            rows = self._rows[key] = self._grown(rows, new, end)
        rows[:, self.begins : end] = new
        padded = padded_rows(end) if pads else end
        if padded == end:
            return rows[:, :end]
        if rows.shape[1] < padded:  # close to the limit: a copy has room for them
            return pad(rows[:, :end], (0, 0, 0, padded - end))
        rows[:, end:padded] = 0
        return rows[:, :padded]

    def fork(self, source: "KVCache", placement: Placement) -> Iterator[None]:
        """Copy the rows that a placement keeps of another cache into this one, which is empty.

        Each step copies one tensor; until the last one, neither cache may be used otherwise.

        Raises:
            SpanError: at the first step, where rows are not there.
        """
        start, keep = placement.start, placement.keep
        if not source.fits(placement) or start > self.limit:
            problem = f"a cache of {source.length} rows cannot be copied up to {start}"
            raise SpanError(self.first, self.last, problem)
        for key, rows in source._rows.items():
            with torch.inference_mode():
                self._rows[key] = _kept(rows, start, keep, self._room(start, start))
            yield
        if source.states is not None:
            self.states = source.states.copy()
            self.states.place(start, start)
        self.length = start

    def copy(self) -> "KVCache":
        """Return a cache that holds the same rows, for a text that parts from this one's."""
        states = None if self.states is None else self.states.copy()
        same = KVCache(self.first, self.last, self.limit, self.dtype, states)
        same.length = self.length
        same._rows = {key: rows.clone() for key, rows in self._rows.items()}
        return same

    @property
    def nbytes(self) -> int:
        """Memory held, room for growth included."""
        held = sum(rows.nbytes for rows in self._rows.values())
        return held + (0 if self.states is None else self.states.nbytes)

    @property
    def numel_per_token(self) -> int:
        """Numbers in one row of all layers; 0 before the first forward."""
        return sum(rows.shape[0] * rows.shape[2] for rows in self._rows.values())

    @property
    def nbytes_per_token(self) -> int:
        """Memory of one row in all layers; 0 before the first forward."""
        return sum(rows.nbytes // rows.shape[1] for rows in self._rows.values())

    def _grown(self, old: torch.Tensor | None, new: torch.Tensor, needed: int) -> torch.Tensor:
        """Return a copy of `old` with room for `needed` rows, an eighth more if that is allowed."""
        room = self._room(needed, 0 if old is None else old.shape[1])
        grown = new.new_empty((new.shape[0], room, new.shape[2]), dtype=self.dtype)
        if old is not None:
            grown[:, : self.length] = old[:, : self.length]
        return grown

    def _room(self, needed: int, held: int) -> int:
        """Return for how many rows to allocate room, where there was room for ``held``."""
        # Growing by a share of the length keeps the copying per token constant; an eighth keeps
        # the waste small.
        room = max(needed, held * 9 // 8)
        return min(-(-room // BLOCK_TOKENS) * BLOCK_TOKENS, self.limit)


class PackedCache(StateAccess, Cache):  # type: ignore[misc]  # transformers is untyped here
    """The cache that layers use in one forward over the tokens of several sessions.

    The packed row holds `views[i].count` tokens of `caches[i]`, side by side. `update` stores the
    tokens of every session in its own cache. `swarm.model.attention` finds the sessions' keys and
    values by the keys that a layer hands to it: see `sessions`.

    Args:
        gathers: whether layers get the rows of all sessions, one session after the other, and not
            only the new ones. Layers need them that change what was cached before they attend to
            it, row by row: those that cache a latent, and expand keys and values from it.
        pads: whether rows that no token may see may follow those of a session: see `KVCache.write`.
            Only packed attention knows how to mask them.
    """

    def __init__(
        self,
        caches: Sequence[KVCache],
        views: Sequence[AttentionView],
        gathers: bool = False,
        pads: bool = False,
    ) -> None:
        self.layers: list[object] = []  # the base class's methods find no layers of their own
        self.layer_class_to_replicate = None
        self.offloading = False
        self.caches = caches
        self.views = views
        StateAccess.__init__(
            self, [cache.states for cache in caches], [view.count for view in views]
        )
        self.row_counts = [view.start + view.count for view in views]
        self._gathers = gathers
        self._pads = pads and not gathers
        # By the keys that `update` returned: as long as a layer holds these, another may use them.
        self._cached = WeakTensorKeyDictionary()

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
            All keys and values of all sessions, if it gathers, or if there is but one whose rows
            have the arguments' dtype (padded); otherwise the arguments. `sessions` knows them
            again.
        """
        split_keys = key_states[0].split_with_sizes(self.counts, dim=1)
        split_values = value_states[0].split_with_sizes(self.counts, dim=1)
        sessions = zip(self.caches, split_keys, split_values, strict=True)
        cached = [cache.write(layer_idx, key, value, self._pads) for cache, key, value in sessions]
        alone = len(cached) == 1 and cached[0][0].dtype == key_states.dtype
        if self._gathers or alone:
            key_states = _side_by_side([keys for keys, _ in cached], key_states.dtype)
            value_states = _side_by_side([values for _, values in cached], value_states.dtype)
        self._cached[key_states] = cached
        return key_states, value_states

    def update_indexer(self, key_states: torch.Tensor, layer_idx: int) -> torch.Tensor:
        """Store an indexer's keys [1, total, width], and return those of all sessions.

        The rows of one session follow those of the one before: the mask is that of all of them.
        """
        sessions = zip(self.caches, key_states.split_with_sizes(self.counts, dim=1), strict=True)
        rows = [cache.append(layer_idx, INDEX_KEYS, new) for cache, new in sessions]
        return _side_by_side(rows, key_states.dtype)[0]

    def sessions(
        self, keys: torch.Tensor, values: torch.Tensor
    ) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """Return the keys and values of each session, [heads, rows, dim], to attend to.

        Args:
            keys: [1, heads, rows, dim]: those that `update` returned to this or an earlier layer,
                or, if it gathers, what the layer made of them.
            values: likewise.

        Raises:
            NotPackable: if it cannot be told whose they are.
        """
        if keys in self._cached:
            cached: Sequence[tuple[torch.Tensor, torch.Tensor]] = self._cached[keys]
            return cached
        if not self._gathers or keys.shape[2] != sum(self.row_counts):
            raise NotPackable("its layers change keys after they were cached")
        each = (all_[0].split_with_sizes(self.row_counts, dim=1) for all_ in (keys, values))
        return list(zip(*each, strict=True))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before this forward; meaningful only with a single session."""
        return self.views[0].start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.views[0].start

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of the keys, for the masks of a model with its own attention code."""
        return self.views[0].start + query_length, 0


def _kept(rows: torch.Tensor, start: int, keep: Sequence[int], room: int) -> torch.Tensor:
    """Return a copy [heads, room, width] of the first ``start`` rows that a placement leaves."""
    copy = rows.new_empty((rows.shape[0], room, rows.shape[2]))
    still = start - len(keep)
    copy[:, :still] = rows[:, :still]
    if keep:
        copy[:, still:start] = rows[:, list(keep)]
    return copy


def _side_by_side(sessions: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Return [1, heads, all rows, width], one session after the other."""
    rows = sessions[0] if len(sessions) == 1 else torch.cat(list(sessions), dim=1)
    return rows.unsqueeze(0).to(dtype)


def cache_argument(decoder: nn.Module) -> str:
    """Return the name under which a decoder takes its cache."""
    accepted = signature(decoder.forward).parameters
    return next(filter(accepted.__contains__, CACHE_ARGUMENTS), CACHE_ARGUMENTS[0])


def packed_cache_of(decoder: nn.Module) -> type[PackedCache]:
    """Return the class of caches for a decoder, which may ask for a kind of its own (MiniMax)."""
    module = type(decoder).__module__
    own = tuple(
        each
        for each in vars(sys.modules[module]).values()
        if isinstance(each, type) and issubclass(each, Cache) and each.__module__ == module
    )
    return type("PackedCache", (PackedCache, *own), {}) if own else PackedCache
