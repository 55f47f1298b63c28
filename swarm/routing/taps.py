"""Chains whose peers tell the outputs of the layers that a drafter reads (`swarm.wire.taps`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from swarm.routing.chain import Stage
from swarm.routing.plan import Candidate

# A chain that tells may cost this many times as much as the best one. Heads that read inner layers
# are published with gains of two to four times.
WORTH = 2.0


@dataclass(frozen=True)
class Tapping:
    """What a drafter reads.

    Attributes:
        layers: whose outputs are to be told.
        doubted: ids of peers whose outputs are not to be trusted.
    """

    layers: tuple[int, ...]
    doubted: frozenset[str] = frozenset()

    def tells(self, candidate: Candidate, first: int, last: int) -> bool:
        """Return whether all is told if a peer serves the layers ``[first, last)``."""
        able = candidate.taps and candidate.peer_id not in self.doubted
        return able or not any(first <= layer < last for layer in self.layers)

    def told_by(self, stages: Sequence[Stage], candidates: Sequence[Candidate]) -> bool:
        """Return whether a chain of these candidates tells all."""
        by_id = {each.peer_id: each for each in candidates}
        return all(self.tells(by_id[each.peer_id], each.first, each.last) for each in stages)

    def among(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates with the layers that they may serve in a chain that tells all.

        A peer that does not tell may serve layers that are not read: it is left with the longest
        run of these.
        """
        return [part for each in candidates if (part := self._part(each)) is not None]

    def _part(self, candidate: Candidate) -> Candidate | None:
        first, last = candidate.first_layer, candidate.last_layer
        if self.tells(candidate, first, last):
            return candidate
        read = sorted(layer for layer in self.layers if first <= layer < last)
        starts = [first, *(layer + 1 for layer in read)]
        runs = list(zip(starts, [*read, last], strict=True))
        start, end = max(runs, key=lambda run: run[1] - run[0])
        return replace(candidate, first_layer=start, last_layer=end) if start < end else None
