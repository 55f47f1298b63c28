"""The interface of a drafter, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Drafted:
    """A guessed token, in the target's vocabulary.

    Attributes:
        logits: ``[vocabulary]``, the draft's own, shaped as the target's are (`Shaping`), before
            temperature; None if the guess came from no distribution, such as a copy out of the
            prompt.
        confidence: the draft's confidence in the token, 0 to 1 (`Sampling.rank`); None if it has
            none.
        others: its next choices with its confidence in each, the best first.
    """

    token: int
    logits: Tensor | None = None
    confidence: float | None = None
    others: tuple[tuple[int, float], ...] = ()


class Drafter(Protocol):
    """Guesses the continuation of a sequence. Only one thread may call it at a time.

    Sequences of consecutive calls may go back and branch off: a drafter reuses what they share.
    """

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """Return at most ``count`` tokens that may follow ``sequence``."""
        ...

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """Return at most ``count`` tokens for each path, that may follow ``text`` and the path.

        ``text`` is committed; the paths are drafted. By default, drafts one path after the other.
        """
        return [self.draft([*text, *path], count) for path in paths]
