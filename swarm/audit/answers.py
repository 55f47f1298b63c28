"""What a chain answered for a text, and its comparison with another chain's answers."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from swarm.audit.tolerance import candidate_distances, distances
from swarm.decoding.candidates import CandidateRow


class Incomparable(Exception):
    """Rows that do not belong to the same text or to the positions given for them.

    Never a peer's fault: a peer's answers are checked before they become rows.
    """


@dataclass(frozen=True, eq=False)
class Answers:
    """One chain's answers at some positions of a text: hidden states, or candidates.

    Attributes:
        text: the tokens that the chain computed, at least up to the last of the positions.
        positions: ascending, at least one.
        hidden: ``[len(positions), hidden]``, behind the final norm; empty if there are candidates.
        candidates: one row for each position, if the last peer answered by its own head.

    Raises:
        Incomparable: unless there is one row for each position, and each position is in the text.
    """

    text: tuple[int, ...]
    positions: tuple[int, ...]
    hidden: Tensor
    candidates: tuple[CandidateRow, ...] = ()

    def __post_init__(self) -> None:
        positions = self.positions
        rows = len(self.candidates) or self.hidden.shape[0]
        if rows != len(positions) or not positions:
            raise Incomparable(f"{rows} rows for {len(positions)} positions")
        ascending = all(one < other for one, other in pairwise(positions))
        if not ascending or not 0 <= positions[0] <= positions[-1] < len(self.text):
            raise Incomparable(f"positions {positions} of a text of {len(self.text)} tokens")

    def distances(self, other: "Answers") -> Tensor:
        """Return `swarm.audit.tolerance.distances` at each position, float32 ``[n]``.

        Raises:
            Incomparable: if the two are not of the same text, positions and width.
        """
        if (self.text, self.positions) != (other.text, other.positions):
            raise Incomparable("two answers to different tokens")
        if len(self.candidates) != len(other.candidates):
            raise Incomparable("candidates and hidden states")
        if self.candidates:
            return candidate_distances(self.candidates, other.candidates)
        if self.hidden.shape != other.hidden.shape:
            raise Incomparable(f"rows {list(self.hidden.shape)} and {list(other.hidden.shape)}")
        return distances(self.hidden, other.hidden)
