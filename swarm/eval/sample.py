"""One text of an evaluation, and how it was decoded."""

from dataclasses import dataclass

from swarm.decoding.decoder import FinishReason
from swarm.outputs import Generation, Piece


@dataclass(frozen=True)
class EvalSample:
    """A text, and how it was decoded.

    Attributes:
        pieces: its tokens; ``text`` is their text.
        loops: answers of the target that decided something.
        drafted: tokens that were drafted, those behind an overruled one included.
        mean_log_p: mean over the tokens of log p under the target, at temperature 1; None if it was
            not computed.
    """

    text: str
    pieces: tuple[Piece, ...]
    finish_reason: FinishReason
    loops: int
    drafted: int
    mean_log_p: float | None = None

    @classmethod
    def of(cls, generation: Generation, mean_log_p: float | None = None) -> "EvalSample":
        """Return the sample of a client's generation."""
        return cls(
            generation.text,
            generation.pieces,
            generation.stats.finish_reason,
            generation.stats.loops,
            generation.stats.drafted_tokens,
            mean_log_p,
        )

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(piece.token_id for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """How many tokens the text has."""
        return len(self.pieces)

    @property
    def accepted(self) -> int:
        """Drafted tokens that were accepted."""
        return sum(was_accepted(piece) for piece in self.pieces)

    @property
    def relaxed(self) -> int:
        """Accepted tokens where the target would have chosen another one."""
        return sum(piece.origin == "relaxed" for piece in self.pieces)

    @property
    def overruled(self) -> int:
        """Drafted tokens that the target overruled."""
        return sum(piece.drafted_id is not None for piece in self.pieces) - self.accepted

    @property
    def deficit_nats(self) -> float:
        """The cost of the relaxed tokens."""
        return sum(piece.deficit_nats for piece in self.pieces)


def was_accepted(piece: Piece) -> bool:
    """Return whether a token had been drafted, and was accepted."""
    return piece.origin in ("drafted", "relaxed")
