"""The chain with the shortest loop: which peers, and where each hands over to the next.

The cost of a loop is the sum of: half a round trip from the client to the first peer; at every peer
a fixed part (its overhead, and other sessions that wait there) and a part for each layer; the links
between peers; half a round trip back to the client. The search is exact, by dynamic programming
over (layer, peer), in whole arrays: one step handles all peers that serve a layer.

A chain whose peers compute in one dtype is preferred. Its text is that of the model in that dtype,
whichever peers they are. That of a mixed chain depends on which layers are rounded how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from swarm.errors import MissingLayers
from swarm.routing.chain import Stage, gaps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_REVISITS = 16  # times that the search is split because a chain came back to a peer it had left
# Only the nearest and fastest peers of a layer are considered: ten thousand make no better chain.
MAX_PER_LAYER = 64
# A mixed chain counts as longer by this factor. The predictions for a chain are right to some 15 %
# (`swarm.chain.choice.STICKY`), so only a lead of twice that is clear.
MIXED = 1.3


@dataclass(frozen=True)
class Candidate:
    """A peer that may be part of a chain: it serves ``[first_layer, last_layer)``.

    Attributes:
        rtt_ms: round trip between the client and the peer.
        fixed_ms: time that every frame takes there besides its layers, waiting for other frames
            included.
        layer_ms: time that one layer takes for one frame.
        neighbours_ms: one-way times to other peers that it has measured, by their ids.
        dtype: that it computes in; empty where that does not matter.
        taps: it tells outputs of its layers on request.
    """

    peer_id: str
    first_layer: int
    last_layer: int
    rtt_ms: float
    fixed_ms: float = 0.0
    layer_ms: float = 0.0
    neighbours_ms: Mapping[str, float] = field(default_factory=dict)
    dtype: str = ""
    taps: bool = True


@dataclass(frozen=True)
class Route:
    """A chain, and the predicted time of its loop.

    Attributes:
        dtypes: that its peers compute in.
    """

    stages: tuple[Stage, ...]
    loop_ms: float
    dtypes: frozenset[str] = frozenset()

    @property
    def cost_ms(self) -> float:
        """What chains are compared by: the loop, longer by `MIXED` if they mix dtypes."""
        return self.loop_ms * (MIXED if len(self.dtypes) > 1 else 1.0)


def plan(candidates: Sequence[Candidate], model_layers: int, model: str = "the model") -> Route:
    """Return the chain that costs least; of equals, that with the first ``candidates``.

    It has the shortest loop. If that one mixes dtypes and is not clearly faster, it is the shortest
    loop among peers of one dtype.

    A link between two peers takes the lesser of both peers' measurements, and at most half of both
    round trips: a frame can always go by way of the client.

    Args:
        model: its name, for the error.

    Raises:
        MissingLayers: if the candidates leave a gap.
    """
    if missing := gaps(candidates, model_layers):
        raise MissingLayers(model, tuple(missing), model_layers, len(candidates))
    best = _shortest(candidates, model_layers)
    if len(best.dtypes) <= 1:
        return best
    dtypes = dict.fromkeys(each.dtype for each in candidates)
    groups = [[each for each in candidates if each.dtype == dtype] for dtype in dtypes]
    alike = [_shortest(group, model_layers) for group in groups if not gaps(group, model_layers)]
    return min([*alike, best], key=lambda each: each.cost_ms)


def predict(stages: Sequence[Stage], candidates: Sequence[Candidate]) -> Route | None:
    """Return a chain with its loop as it is now; None if a peer is gone or serves its layers no
    more."""
    by_id = {candidate.peer_id: candidate for candidate in candidates}
    parts = []
    for stage in stages:
        candidate = by_id.get(stage.peer_id)
        if candidate is None:
            return None
        if not candidate.first_layer <= stage.first < stage.last <= candidate.last_layer:
            return None
        parts.append(replace(candidate, first_layer=stage.first, last_layer=stage.last))
    return _shortest(parts, stages[-1].last)


def runner_up(best: Route, candidates: Sequence[Candidate], model_layers: int) -> Route | None:
    """Return the best route without one of the peers of ``best``; None if it needs them all."""
    others = []
    for stage in best.stages:
        rest = [candidate for candidate in candidates if candidate.peer_id != stage.peer_id]
        if not gaps(rest, model_layers):
            others.append(plan(rest, model_layers))
    return min(others, key=lambda each: each.cost_ms, default=None)


def _shortest(candidates: Sequence[Candidate], model_layers: int) -> Route:
    """Return the chain with the shortest loop; the candidates leave no gap."""
    best = _Search(_likely(candidates, model_layers), model_layers).best(MAX_REVISITS)
    assert best is not None  # there is no gap
    return best


def _likely(candidates: Sequence[Candidate], model_layers: int) -> list[Candidate]:
    """Return the candidates that are among the nearest and fastest for some layer, in order."""
    if len(candidates) <= MAX_PER_LAYER:
        return list(candidates)
    first = np.array([c.first_layer for c in candidates])
    last = np.array([c.last_layer for c in candidates])
    score = np.array(
        [c.rtt_ms + c.fixed_ms + c.layer_ms * (c.last_layer - c.first_layer) for c in candidates]
    )
    kept = np.zeros(len(candidates), dtype=bool)
    for layer in range(model_layers):
        here = np.flatnonzero((first <= layer) & (layer < last))
        if len(here) > MAX_PER_LAYER:
            here = here[np.argpartition(score[here], MAX_PER_LAYER)[:MAX_PER_LAYER]]
        kept[here] = True
    return [candidate for candidate, likely in zip(candidates, kept, strict=True) if likely]


class _Links:
    """Measured one-way times between candidates, by their indices, sorted by where they lead."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        index = {candidate.peer_id: i for i, candidate in enumerate(candidates)}
        known: dict[tuple[int, int], float] = {}
        for i, candidate in enumerate(candidates):
            for peer_id, ms in candidate.neighbours_ms.items():
                j = index.get(peer_id, i)
                if j != i:
                    for pair in ((i, j), (j, i)):
                        known[pair] = min(ms, known.get(pair, ms))
        pairs = sorted(known, key=lambda pair: pair[1])
        self.source = np.array([source for source, _ in pairs], dtype=np.int64)
        self.ms = np.array([known[pair] for pair in pairs], dtype=np.float64)
        targets = np.array([target for _, target in pairs], dtype=np.int64)
        self.targets, self.starts = np.unique(targets, return_index=True)


class _Search:
    """Finds the best chain that enters no peer twice: a session lives once on a peer."""

    def __init__(self, candidates: Sequence[Candidate], model_layers: int) -> None:
        self._candidates = candidates
        self._layers = model_layers
        self._links = _Links(candidates)
        self._half = np.array([c.rtt_ms / 2 for c in candidates])
        self._fixed = np.array([c.fixed_ms for c in candidates])
        self._layer = np.array([c.layer_ms for c in candidates])
        self._first = np.array([c.first_layer for c in candidates])
        self._last = np.array([min(c.last_layer, model_layers) for c in candidates])
        # A peer may be entered before the layers [from, before).
        self._from = self._first.copy()
        self._before = self._last.copy()

    def best(self, splits: int) -> Route | None:
        """Return the best chain, or None if there is none.

        Where the shortest one comes back to a peer, searches twice: that peer may be entered only
        before the layer where the chain came back, or only from there on.
        """
        found = self._shortest()
        if found is None:
            return None
        ids = [stage.peer_id for stage in found.stages]
        again = next((i for i, peer_id in enumerate(ids) if peer_id in ids[:i]), None)
        if again is None or not splits:
            return found
        peer = next(i for i, c in enumerate(self._candidates) if c.peer_id == ids[again])
        routes = []
        for bound in (self._before, self._from):
            before = bound[peer]
            bound[peer] = found.stages[again].first
            routes.append(self.best(splits - 1))
            bound[peer] = before
        return min(filter(None, routes), key=lambda each: each.loop_ms, default=None)

    def _shortest(self) -> Route | None:
        size = len(self._candidates)
        layers = self._layers
        run = np.full(size, np.inf)  # time until the frame has passed all layers so far, by peer
        # The peer that computed the layer before; -1 is the client.
        entered_from = np.full((layers, size), -1, dtype=np.int64)
        for layer in range(layers):
            here = np.flatnonzero((self._first <= layer) & (layer < self._last))
            if not len(here):
                return None
            enter, source = self._enter(layer, run, here)
            may_enter = (self._from[here] <= layer) & (layer < self._before[here])
            enter = np.where(may_enter, enter, np.inf)
            going_on = run[here] <= enter + self._fixed[here]
            entered_from[layer, here] = np.where(going_on, here, source)
            passed = np.where(going_on, run[here], enter + self._fixed[here]) + self._layer[here]
            run = np.full(size, np.inf)
            run[here] = passed
        total = run + self._half
        end = int(total.argmin())
        if not np.isfinite(total[end]):
            return None
        return self._trace(entered_from, end, float(total[end]))

    def _enter(self, layer: int, run: Floats, here: Ints) -> tuple[Floats, Ints]:
        """Return the least time to get to each peer of ``here`` before ``layer``, and from where.

        -1 is the client.
        """
        if layer == 0:
            return self._half[here], np.full(len(here), -1, dtype=np.int64)
        by_client = run + self._half
        nearest = int(by_client.argmin())
        enter = by_client[nearest] + self._half[here]
        source = np.full(len(here), nearest, dtype=np.int64)
        links = self._links
        if not len(links.targets):
            return enter, source
        over_links = np.full(len(run), np.inf)
        costs = run[links.source] + links.ms
        over_links[links.targets] = np.minimum.reduceat(costs, links.starts)
        better = over_links[here] < enter
        for i in np.flatnonzero(better):
            group = int(np.searchsorted(links.targets, here[i]))
            start = links.starts[group]
            end = links.starts[group + 1] if group + 1 < len(links.starts) else len(costs)
            source[i] = links.source[start + int(costs[start:end].argmin())]
        return np.where(better, over_links[here], enter), source

    def _trace(self, entered_from: Ints, end: int, loop_ms: float) -> Route:
        """Return the chain that ends at a peer, traced back from there."""
        stages = []
        dtypes = set()
        peer = end
        last = self._layers
        for layer in range(self._layers - 1, -1, -1):
            source = int(entered_from[layer, peer])
            if source != peer:
                stages.append(Stage(self._candidates[peer].peer_id, layer, last))
                dtypes.add(self._candidates[peer].dtype)
                peer = source
                last = layer
        return Route(tuple(reversed(stages)), loop_ms, frozenset(dtypes))
