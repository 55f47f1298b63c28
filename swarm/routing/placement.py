"""Which layers a peer should serve, and when it should move.

A layer is the weaker, the fewer peers serve it; from `REDUNDANCY` peers on, the less tokens per
second they make together. A peer without a span takes the one that lifts the weakest layers most. A
peer that serves moves only where that clearly pays, so that a swarm in which everybody follows
these rules comes to rest: with every move fewer layers are missing; or as many, and fewer hang on a
single peer; or as many of both, and the slowest layers are faster.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Span = tuple[int, int]

REDUNDANCY = 2  # with one peer a layer is one failure away from missing, however fast that peer is
# layers that are faster than the slowest by less than this are as slow; measured speeds differ so
HYSTERESIS = 1.25
# of a peer's layers must be lifted to pay for loading them, unless no layer as weak is left
WORTH = 0.25
# speeds that differ by less than this part of the greatest are equal: float sums are not exact
SPEED_STEPS = 1 << 32
RANK = 1 << 40  # more than SPEED_STEPS: what one more peer weighs against any speed


@dataclass(frozen=True)
class Serving:
    """One peer's span ``[first_layer, last_layer)`` as others see it."""

    peer_id: str
    first_layer: int
    last_layer: int
    tokens_per_second: float


def choose_span(
    peers: Sequence[Serving],
    model_layers: int,
    capacity: int,
    tokens_per_second: float,
    rng: random.Random,
) -> Span:
    """The span of ``capacity`` layers (at least 1; all, if the model has no more) that helps the
    weakest layers most.

    Of equals, those that leave the least for others to fill in; of these, those that begin and end
    where others do; of these, one by lot, so that peers who choose at the same time spread.
    """
    size = min(capacity, model_layers)
    return _best(
        _Coverage.of(peers, model_layers),
        range(model_layers - size + 1),
        size,
        tokens_per_second,
        rng,
    )


def better_span(
    peers: Sequence[Serving], mine: Serving, model_layers: int, capacity: int, rng: random.Random
) -> Span | None:
    """Where to move from ``mine``; None to stay. Layers that nobody else serves are never left.

    Args:
        peers: of whom it is known that they are there; whether ``mine`` is among them makes no
            difference.
    """
    size = min(capacity, model_layers)
    others = _Coverage.of([peer for peer in peers if peer.peer_id != mine.peer_id], model_layers)
    held = np.flatnonzero(others.counts[mine.first_layer : mine.last_layer] == 0) + mine.first_layer
    if len(held) and held[-1] - held[0] >= size:
        return None
    earliest = max(0, int(held[-1]) + 1 - size) if len(held) else 0
    latest = min(int(held[0]), model_layers - size) if len(held) else model_layers - size
    first, last = _best(others, range(earliest, latest + 1), size, mine.tokens_per_second, rng)
    now = others.plus(mine.first_layer, mine.last_layer, mine.tokens_per_second)
    return (
        (first, last)
        if _pays(now, others.plus(first, last, mine.tokens_per_second), size)
        else None
    )


@dataclass(frozen=True)
class _Coverage:
    """How all layers are served: by how many peers, and how fast."""

    counts: Ints  # [layers]
    speeds: Floats  # [layers], tokens per second
    # [layers + 1]: a chain changes peers here anyhow, or nobody's span goes across
    borders: NDArray[np.bool_]

    @classmethod
    def of(cls, peers: Sequence[Serving], layers: int) -> "_Coverage":
        first = np.array([peer.first_layer for peer in peers], dtype=np.int64)
        last = np.array([peer.last_layer for peer in peers], dtype=np.int64)
        speed = np.array([peer.tokens_per_second for peer in peers], dtype=np.float64)
        begin, end = (
            np.bincount(first, minlength=layers + 1),
            np.bincount(last, minlength=layers + 1),
        )
        faster, slower = (
            np.bincount(at, weights=speed, minlength=layers + 1) for at in (first, last)
        )
        counts = np.cumsum(begin - end)
        # What is left of a sum after as much was taken away may be a little more than nothing, or
        # less.
        speeds = np.where(counts > 0, np.maximum(np.cumsum(faster - slower), 0.0), 0.0)
        across = counts - begin  # spans that begin before a border and go on behind it
        return cls(counts[:layers], speeds[:layers], (begin > 0) | (end > 0) | (across == 0))

    def plus(self, first: int, last: int, speed: float) -> "_Coverage":
        """With one more peer; its borders do not count."""
        counts, speeds = self.counts.copy(), self.speeds.copy()
        counts[first:last] += 1
        speeds[first:last] += speed
        return _Coverage(counts, speeds, self.borders)


def _best(others: _Coverage, starts: range, size: int, speed: float, rng: random.Random) -> Span:
    """The best span of ``size`` layers that begins at one of ``starts``."""
    first = np.arange(starts.start, starts.stop)[:, None]
    layer = np.arange(len(others.counts))
    mine = (first <= layer) & (layer < first + size)  # [starts, layers]
    strengths = _strengths(others.counts + mine, others.speeds + speed * mine)
    weakest_first = np.sort(strengths, axis=1).tolist()
    most = max(weakest_first)  # lists compare by their first difference
    costs = {
        start: (
            _further_peers(strengths[i], size),
            _new_borders(others.borders, start, start + size),
        )
        for i, start in enumerate(starts)
        if weakest_first[i] == most
    }
    least = min(costs.values())
    start = rng.choice([start for start, cost in costs.items() if cost == least])
    return start, start + size


def _strengths(counts: Ints, speeds: Floats) -> Ints:
    """One number a layer by which layers compare: peers up to `REDUNDANCY` first, then speed."""
    fastest = max(float(speeds.max()), 1e-9)
    steps = np.rint(speeds * (SPEED_STEPS / fastest)).astype(np.int64)
    result: Ints = np.minimum(counts, REDUNDANCY) * RANK + steps
    return result


def _further_peers(strengths: Ints, size: int) -> int:
    """How many more spans of ``size`` it takes to lift all of the layers that are weakest."""
    weakest = np.concatenate(([False], strengths == strengths.min(), [False]))
    edges = np.flatnonzero(weakest[1:] != weakest[:-1])
    return int((-(-(edges[1::2] - edges[::2]) // size)).sum())


def _new_borders(borders: NDArray[np.bool_], first: int, last: int) -> int:
    """At how many places a chain would have to change peers where it does not now."""
    return int(not borders[first]) + int(not borders[last])


def _pays(now: _Coverage, then: _Coverage, size: int) -> bool:
    """Whether what is gained by a move is worth it. No layer goes missing by it."""
    for wanted in range(1, REDUNDANCY + 1):
        few_now, few_then = int((now.counts < wanted).sum()), int((then.counts < wanted).sum())
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
