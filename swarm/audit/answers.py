"""What chains said of one text, by position: two of them are compared place by place, or not at
all."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from swarm.audit.distance import distances


class Incomparable(Exception):
    """Rows that do not belong together, or not where they are said to.

    Never a peer's fault: what a peer sends is checked before it becomes a row.
    """


@dataclass(frozen=True, eq=False)
class Answers:
    """What one chain said at some positions of a text.

    Attributes:
        text: the tokens that the chain was told, all that it says anything of included.
        positions: ascending, at least one.
        hidden: ``[len(positions), hidden]``, behind the final norm.

    Raises:
        Incomparable: if there is not just one row for each position, and each within the text.
    """

    text: tuple[int, ...]
    positions: tuple[int, ...]
    hidden: Tensor

    def __post_init__(self) -> None:
        places, rows = self.positions, self.hidden.shape[0]
        if rows != len(places) or not places:
            raise Incomparable(f"{rows} rows for {len(places)} positions")
        if not all(one < other for one, other in pairwise(places)) or not 0 <= places[0] <= places[
            -1
        ] < len(self.text):
            raise Incomparable(f"positions {places} of a text of {len(self.text)} tokens")

    def distances(self, other: "Answers") -> Tensor:
        """How far apart the two are at each position, float32 ``[n]``; see `swarm.audit.distance`.

        Raises:
            Incomparable: if the two are not of the same text, positions and width.
        """
        if (self.text, self.positions) != (other.text, other.positions):
            raise Incomparable("two answers to different tokens")
        if self.hidden.shape != other.hidden.shape:
            raise Incomparable(f"rows {list(self.hidden.shape)} and {list(other.hidden.shape)}")
        return distances(self.hidden, other.hidden)
