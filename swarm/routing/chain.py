"""Stages of a chain, and the layers of a model that no peer serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Serves(Protocol):
    """A peer as the planner sees it: it serves layers ``[first_layer, last_layer)``."""

    @property
    def peer_id(self) -> str: ...
    @property
    def first_layer(self) -> int: ...
    @property
    def last_layer(self) -> int: ...


@dataclass(frozen=True)
class Stage:
    """One peer's part of a chain: layers ``[first, last)``, all or some of the peer's span."""

    peer_id: str
    first: int
    last: int


def gaps(peers: Sequence[Serves], model_layers: int) -> list[tuple[int, int]]:
    """Return the spans ``[a, b)`` of layers that no peer serves, in order."""
    found = []
    reached = 0
    spans = sorted((peer.first_layer, peer.last_layer) for peer in peers)
    for first, last in [*spans, (model_layers, model_layers)]:
        if reached < min(first, model_layers):
            found.append((reached, min(first, model_layers)))
        reached = max(reached, last)
    return found
