"""Drafting in lockstep by a head that reads the target's answers."""

from collections.abc import Sequence

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.feature_book import FIRST_ANSWERED
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.model.heads.loading import FeatureDraft


class HeadGuesser:
    """Guesses the tokens of one text for one writer, as a client's head drafts them.

    Args:
        start: tokens of the prompt.
    """

    def __init__(self, head: FeatureDraft, sampling: Sampling, start: int) -> None:
        self._drafter = head.drafter(sampling, Shaping(), frozenset())
        self._start = start
        self._next = max(FIRST_ANSWERED, start - head.prompt_features)  # answer that it is told

    def guess(self, tokens: Sequence[int], ahead: int, answers: Sequence[Tensor]) -> Drafted | None:
        """Return what the head guesses behind some tokens; None if it cannot read them.

        Nothing is known of the target before its first answer, so the first token is not guessed.

        Args:
            ahead: how many of these were drafted since the last answer that is known. That one
                decided the token before them.
            answers: the target's, by position: ``[hidden]``, or ``[taps, hidden]``.
        """
        if len(tokens) - ahead == self._start:
            return None
        text, path = list(tokens[: len(tokens) - ahead]), tokens[len(tokens) - ahead :]
        known = range(self._next, len(text) - 1)
        self._next = max(self._next, known.stop)
        self._drafter.answered(text, [Feature(each, (), answers[each]) for each in known])
        ((*guesses,),) = self._drafter.draft_each(text, [path], 1)
        return guesses[0] if guesses else None
