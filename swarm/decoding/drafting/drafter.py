"""What a drafter gives, and how it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Drafted:
    """A guessed token, in the target's vocabulary.

    ``logits`` ``[vocabulary]`` are the draft's own, shaped as the target's are (`Shaping`), before temperature;
    None if the guess came from no distribution, such as a copy out of the prompt.
    """

    token: int
    logits: Tensor | None = None


class Drafter(Protocol):
    """Guesses the continuation of a sequence."""

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """At most ``count`` tokens that may follow ``sequence``. Called from one thread at a time."""
        ...
