"""Drafting without a model: what a constraint forces the text to go on with."""

from collections.abc import Sequence
from typing import Protocol

from swarm.decoding.drafting.drafter import Drafted, Drafter, Source

# The characters are certain. Their tokens are not: the target may spell them in another way.
SURE = 0.99


class Forcing(Protocol):
    """A mask that forces whole stretches of an answer, such as the keys of a JSON object."""

    def forced(self, answer: Sequence[int]) -> list[int]:
        """Return the tokens that spell what has to follow an answer; [] if nothing has to."""
        ...


class ForcedDrafter(Drafter):
    """Drafts the forced stretches of an answer, so that no model is asked for them.

    Args:
        prompt_tokens: before the answer.
    """

    def __init__(self, forcing: Forcing, prompt_tokens: int) -> None:
        self._forcing = forcing
        self._prompt_tokens = prompt_tokens

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft`. The guesses have no logits."""
        tokens = self._forcing.forced(sequence[self._prompt_tokens :])[:count]
        return [Drafted(token, confidence=SURE, source=Source.FORCED) for token in tokens]
