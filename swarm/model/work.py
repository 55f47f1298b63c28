"""What a span is given to do for one session in one forward."""

from dataclasses import dataclass

import torch

from swarm.model.cache import KVCache
from swarm.model.taps import Taps
from swarm.wire.token_tree import Placement


@dataclass(frozen=True, eq=False)
class Work:
    """Tokens of one session for one forward, and their rows in its cache.

    `inputs` is LongTensor [n] of token ids for layer 0, Tensor [n, hidden] for other layers. The
    forward fills in the `taps`.
    """

    cache: KVCache
    inputs: torch.Tensor
    placement: Placement
    taps: Taps | None = None

    @classmethod
    def behind(cls, cache: KVCache, inputs: torch.Tensor) -> "Work":
        """Return a work whose tokens follow all that the cache holds, one after the other."""
        return cls.at(cache, cache.length, inputs)

    @classmethod
    def at(cls, cache: KVCache, row: int, inputs: torch.Tensor, taps: Taps | None = None) -> "Work":
        """Return a work whose tokens lie from this row on, each behind the one before it."""
        positions = tuple(range(row, row + len(inputs)))
        return cls(cache, inputs, Placement(row, (), positions, trunk=row, sees=None), taps)

    def with_replay(self) -> "Work":
        """Return the work with the rows before it that have to be computed once more.

        These are on a line: only there a cache begins before the rows that it holds.
        """
        replayed = self.cache.replayed()
        if replayed is None:
            return self
        inputs = torch.cat([replayed, self.inputs.to(replayed.dtype)])
        return Work.at(self.cache, self.cache.begins, inputs, self.taps)
