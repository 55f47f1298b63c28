"""Which layers a peer should serve, and when it should move.

A layer is weaker the fewer peers serve it; from `REDUNDANCY` peers on, the fewer tokens per second
they compute together. A peer without a span takes the one that lifts the weakest layers most. A
serving peer moves only where that clearly pays, so that a swarm in which all peers follow these
rules comes to rest. With every move, fewer layers are missing; or as many, and fewer depend on a
single peer; or as many of both, and the slowest layers are faster.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.routing.cuts import Cuts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Span = tuple[int, int]

REDUNDANCY = 2  # with one peer a layer is one failure away from missing, however fast that peer is
# Layers less than this factor faster than the slowest count as slow: measured speeds vary as much.
HYSTERESIS = 1.25
# The share of a peer's layers that must be lifted to pay for loading, unless none as weak is left.
WORTH = 0.25
SPEED_STEPS = 1 << 32  # speeds within one step of the greatest are equal: float sums are not exact
RANK = 1 << 40  # the weight of one more peer; more than SPEED_STEPS, so it outweighs any speed


@dataclass(frozen=True)
class ServedSpan:
    """The span ``[first_layer, last_layer)`` of one peer, as others see it."""

    peer_id: str
    first_layer: int
    last_layer: int
    tokens_per_second: float


def choose_span(
    peers: Sequence[ServedSpan],
    model_layers: int,
    capacity: int,
    tokens_per_second: float,
    rng: random.Random,
    cuts: Cuts | None = None,
) -> Span:
    """Return the span that helps the weakest layers most.

    Of equal spans, takes those after which the fewest peers are still needed; of these, those that
    begin and end where others do; of these, a random one, so that peers that choose at the same
    time spread.

    Args:
        capacity: how many layers the peer holds, at least 1; the span has all layers if the model
            has no more.
        cuts: where the model may be cut, if not anywhere; ``capacity`` holds one of its spans.
    """
    spans = (cuts or Cuts.anywhere(model_layers)).spans(capacity)
    return _best(_Coverage.of(peers, model_layers), spans, tokens_per_second, rng)


def better_span(
    peers: Sequence[ServedSpan],
    mine: ServedSpan,
    model_layers: int,
    capacity: int,
    rng: random.Random,
    cuts: Cuts | None = None,
) -> Span | None:
    """Return where to move from ``mine``, or None to stay.

    A peer never leaves layers that no other peer serves.

    Args:
        peers: the peers known to be online; whether ``mine`` is among them makes no difference.
        cuts: where the model may be cut, if not anywhere.
    """
    others = _Coverage.of([peer for peer in peers if peer.peer_id != mine.peer_id], model_layers)
    held = np.flatnonzero(others.counts[mine.first_layer : mine.last_layer] == 0) + mine.first_layer
    spans = (cuts or Cuts.anywhere(model_layers)).spans(capacity)
    if len(held):
        spans = [span for span in spans if span[0] <= held[0] and held[-1] < span[1]]
    if not spans:
        return None
    first, last = _best(others, spans, mine.tokens_per_second, rng)
    now = others.plus(mine.first_layer, mine.last_layer, mine.tokens_per_second)
    then = others.plus(first, last, mine.tokens_per_second)
    return (first, last) if _pays(now, then, last - first) else None


@dataclass(frozen=True)
class _Coverage:
    """How many peers serve each layer, and how fast.

    Attributes:
        counts: ``[layers]``.
        speeds: ``[layers]``, tokens per second: the sum over the peers that serve the layer.
        borders: ``[layers + 1]``, whether a span begins or ends there, or no span goes across.
    """

    counts: Ints
    speeds: Floats
    borders: NDArray[np.bool_]

    @classmethod
    def of(cls, peers: Sequence[ServedSpan], layers: int) -> "_Coverage":
        first = np.array([peer.first_layer for peer in peers], dtype=np.int64)
        last = np.array([peer.last_layer for peer in peers], dtype=np.int64)
        speed = np.array([peer.tokens_per_second for peer in peers], dtype=np.float64)
        begin = np.bincount(first, minlength=layers + 1)
        end = np.bincount(last, minlength=layers + 1)
        faster = np.bincount(first, weights=speed, minlength=layers + 1)
        slower = np.bincount(last, weights=speed, minlength=layers + 1)
        counts = np.cumsum(begin - end)
        # Float sums are not exact: without peers, what remains may be a little above or below 0.
        speeds = np.where(counts > 0, np.maximum(np.cumsum(faster - slower), 0.0), 0.0)
        across = counts - begin  # spans that begin before a border and go on behind it
        return cls(counts[:layers], speeds[:layers], (begin > 0) | (end > 0) | (across == 0))

    def plus(self, first: int, last: int, speed: float) -> "_Coverage":
        """Return the coverage with one more peer, whose borders do not count."""
        counts = self.counts.copy()
        speeds = self.speeds.copy()
        counts[first:last] += 1
        speeds[first:last] += speed
        return _Coverage(counts, speeds, self.borders)


def _best(others: _Coverage, spans: Sequence[Span], speed: float, rng: random.Random) -> Span:
    """Return the best of some spans."""
    first, last = np.array(spans, dtype=np.int64).T[:, :, None]
    layer = np.arange(len(others.counts))
    mine = (first <= layer) & (layer < last)  # [spans, layers]
    strengths = _strengths(others.counts + mine, others.speeds + speed * mine)
    weakest_first = np.sort(strengths, axis=1).tolist()
    most = max(weakest_first)  # lists compare by their first difference
    costs: dict[Span, tuple[int, int]] = {}
    for i, span in enumerate(spans):
        if weakest_first[i] == most:
            further = _further_peers(strengths[i], span[1] - span[0])
            costs[span] = (further, _new_borders(others.borders, *span))
    least = min(costs.values())
    return rng.choice([span for span, cost in costs.items() if cost == least])


def _strengths(counts: Ints, speeds: Floats) -> Ints:
    """Return one number for each layer: its peers, up to `REDUNDANCY`, count before its speed."""
    fastest = max(float(speeds.max()), 1e-9)
    steps = np.rint(speeds * (SPEED_STEPS / fastest)).astype(np.int64)
    result: Ints = np.minimum(counts, REDUNDANCY) * RANK + steps
    return result


def _further_peers(strengths: Ints, size: int) -> int:
    """Return how many more spans of ``size`` it takes to lift all of the weakest layers."""
    weakest = np.concatenate(([False], strengths == strengths.min(), [False]))
    edges = np.flatnonzero(weakest[1:] != weakest[:-1])
    return int((-(-(edges[1::2] - edges[::2]) // size)).sum())


def _new_borders(borders: NDArray[np.bool_], first: int, last: int) -> int:
    """Return at how many new places a chain would have to change peers."""
    return int(not borders[first]) + int(not borders[last])


def _pays(now: _Coverage, then: _Coverage, size: int) -> bool:
    """Return whether a move gains enough. It never leaves a layer without peers."""
    for wanted in range(1, REDUNDANCY + 1):
        few_now = int((now.counts < wanted).sum())
        few_then = int((then.counts < wanted).sum())
        if few_now and wanted == 1:
            return few_then < few_now
        if few_then != few_now:
            return few_then < few_now and _clearly(few_now, few_then, size)
    if then.speeds.min() < now.speeds.min():
        return False
    slow = HYSTERESIS * now.speeds.min()
    return _clearly(int((now.speeds < slow).sum()), int((then.speeds < slow).sum()), size)


def _clearly(weak_now: int, weak_then: int, size: int) -> bool:
    gained = weak_now - weak_then
    return gained > 0 and (not weak_then or gained >= WORTH * size)
