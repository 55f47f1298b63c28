"""Stages of a chain, and which layers of a model nobody serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.errors import ExitCode, SwarmError


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
    """One peer's part of a chain: layers ``[first, last)``, which may be less than the peer's
    span."""

    peer_id: str
    first: int
    last: int


class MissingLayers(SwarmError):
    """No chain of the known peers covers the model.

    Attributes:
        expected: the directory names peers for the missing layers, which do not answer or are still
            loading: it may be worth while to wait.
    """

    exit_code = ExitCode.INCOMPLETE

    def __init__(
        self,
        model: str,
        gaps: Sequence[tuple[int, int]],
        model_layers: int,
        peers: int,
        expected: bool = False,
    ) -> None:
        super().__init__(model, gaps, model_layers, peers, expected)
        self.expected = expected
        self.model, self.gaps, self.model_layers, self.peers = (
            model,
            tuple(gaps),
            model_layers,
            peers,
        )

    def __str__(self) -> str:
        if not self.peers and self.gaps == ((0, self.model_layers),):
            everything = f"0:{self.model_layers}"
            return (
                f"no peer serves {self.model}; start one with `swarm-peer join {self.model}"
                f" --layers {everything}`"
            )
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
    for first, last in [
        *sorted((peer.first_layer, peer.last_layer) for peer in peers),
        (model_layers, model_layers),
    ]:
        if reached < min(first, model_layers):
            found.append((reached, min(first, model_layers)))
        reached = max(reached, last)
    return found
