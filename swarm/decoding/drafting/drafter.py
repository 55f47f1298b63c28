"""What a drafter gives, and how it is asked."""

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
        sure: how sure the draft is of the token, 0 to 1 (`Sampling.rank`); None if it cannot say.
        others: its next choices, the best first, and how sure it is of each.
    """

    token: int
    logits: Tensor | None = None
    sure: float | None = None
    others: tuple[tuple[int, float], ...] = ()


class Drafter(Protocol):
    """Guesses the continuation of a sequence. Called from one thread at a time.

    Sequences of consecutive calls may go back and branch off: a drafter keeps what they share.
    """

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """At most ``count`` tokens that may follow ``sequence``."""
        ...

    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """At most ``count`` tokens that may follow ``text`` and each of ``paths`` behind it.

        One after the other, unless a drafter knows better. What is in ``text`` is certain.
        """
        return [self.draft([*text, *path], count) for path in paths]
