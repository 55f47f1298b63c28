"""Choosing peers whose spans, one after the other, cover a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.errors import SwarmError


class Serves(Protocol):
    """What the planner must know of a peer: it serves layers ``[first_layer, last_layer)``."""

    @property
    def peer_id(self) -> str: ...
    @property
    def first_layer(self) -> int: ...
    @property
    def last_layer(self) -> int: ...


@dataclass(frozen=True)
class Stage:
    """One peer's part of a chain: layers ``[first, last)``, which may be less than the peer's span."""

    peer_id: str
    first: int
    last: int


class MissingLayers(SwarmError):
    """No chain of the known peers covers the model."""

    def __init__(self, model: str, gaps: Sequence[tuple[int, int]], model_layers: int, peers: int) -> None:
        super().__init__(model, gaps, model_layers, peers)
        self.model, self.gaps, self.model_layers, self.peers = model, tuple(gaps), model_layers, peers

    def __str__(self) -> str:
        if not self.peers and self.gaps == ((0, self.model_layers),):
            everything = f"0:{self.model_layers}"
            return f"no peer serves {self.model}; start one with `swarm-peer join {self.model} --layers {everything}`"
        spans = [f"{first}:{last}" for first, last in self.gaps]
        answering = "1 peer answers" if self.peers == 1 else f"{self.peers} peers answer"
        return (
            f"nobody serves layers {', '.join(spans)} of {self.model} (it has {self.model_layers}; "
            f"{answering}); start a peer with `swarm-peer join {self.model} --layers {spans[0]}`"
        )


def gaps(peers: Sequence[Serves], model_layers: int) -> list[tuple[int, int]]:
    """The spans ``[a, b)`` of layers that no peer serves, in order."""
    found = []
    reached = 0
    for first, last in [*sorted((peer.first_layer, peer.last_layer) for peer in peers), (model_layers, model_layers)]:
        if reached < min(first, model_layers):
            found.append((reached, min(first, model_layers)))
        reached = max(reached, last)
    return found


def plan(
    peers: Sequence[Serves], model_layers: int, rtt_ms: Mapping[str, float], model: str = "the model"
) -> list[Stage]:
    """The chain with the fewest peers, and among these the one with the least sum of round trips.

    Dynamic programming from the last layer to the first: the best way to finish from layer ``i`` is
    the best over all peers that serve it. Each goes on to the end of its span, for whatever can finish
    from an earlier layer can finish from a later one with no more peers and no more round trips.

    Args:
        rtt_ms: measured round trip from the client to each peer; peers that are not in it are not used.
        model: its name, for the error.

    Raises:
        MissingLayers: if the peers leave a gap.
    """
    usable = [peer for peer in peers if peer.peer_id in rtt_ms]
    if missing := gaps(usable, model_layers):
        raise MissingLayers(model, missing, model_layers, len(usable))
    best: list[tuple[int, float, list[Stage]]] = [(0, 0.0, [])] * (model_layers + 1)
    for layer in reversed(range(model_layers)):
        candidates = []
        for peer in usable:
            if not peer.first_layer <= layer < peer.last_layer:
                continue
            end = min(peer.last_layer, model_layers)
            hops, total_ms, rest = best[end]
            stage = Stage(peer.peer_id, layer, end)
            candidates.append((hops + 1, total_ms + rtt_ms[peer.peer_id], [stage, *rest]))
        best[layer] = min(candidates, key=lambda candidate: candidate[:2])
    return best[0][2]
