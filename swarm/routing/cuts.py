"""Where a model may be cut: between which layers one peer's span ends and the next one begins.

Most models may be cut behind each layer, which hands one vector a token to the next. Where layers
hand on more than that (indices of what to attend to, keys and values that later layers share), all
that share it stay on one peer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[int, int]


@dataclass(frozen=True)
class Cuts:
    """The places where a model of some layers may be cut.

    Attributes:
        model_layers: how many layers the model has.
        places: the layers before which it may be cut, the first one left out, in order.
    """

    model_layers: int
    places: tuple[int, ...]

    @classmethod
    def anywhere(cls, model_layers: int) -> "Cuts":
        """Return the cuts of a model whose layers hand on one vector a token."""
        return cls(model_layers, tuple(range(1, model_layers)))

    @property
    def borders(self) -> tuple[int, ...]:
        """Where a span may begin or end, both ends of the model included."""
        return (0, *self.places, self.model_layers)

    @property
    def everywhere(self) -> bool:
        return len(self.places) == self.model_layers - 1

    @property
    def smallest(self) -> Span:
        """The shortest of the spans that cannot be cut any more; the first of equals."""
        return min(pairwise(self.borders), key=lambda span: span[1] - span[0])

    def allow(self, first: int, last: int) -> bool:
        """Return whether the layers ``[first, last)`` can be served apart from all others."""
        return first < last and {first, last} <= set(self.borders)

    def spans(self, capacity: int, starts: Iterable[int] | None = None) -> list[Span]:
        """Return the longest span of at most ``capacity`` layers from each place, if there is one.

        A span that is shorter only because the model ends there is left out: it would be a part of
        another one.

        Args:
            starts: places to begin at; None for all.
        """
        found: list[Span] = []
        for first in self.borders[:-1] if starts is None else starts:
            last = max(
                (each for each in self.borders if first < each <= first + capacity), default=0
            )
            inside = bool(found) and last <= found[-1][1]
            if last and not inside:
                found.append((first, last))
        return found

    def __str__(self) -> str:
        if not self.places:
            return "only whole: its layers hand more to each other than one vector a token"
        return f"only before the layers {', '.join(map(str, self.places))}"
