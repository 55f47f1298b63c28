"""The chance that a drafted token is accepted, learned from how sure its source was.

A draft model's own probability predicts well whether the target agrees (Li et al. 2024, "EAGLE-2",
section 3.2), and the length of the match whether a copy is right. The chance of acceptance is
another number: it depends on the pair of models, on the rule, on whether the token was the draft's
first choice or its second, and on how far it lies behind the last answer. So it is learned.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Hashable
from typing import NamedTuple

from swarm.decoding.drafting.drafter import Source
from swarm.util.averages import FadingMean

EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of bins of confidences
MATCHED = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)  # likewise of matches, in tokens
LAGS = (2, 3, 4, 6, 8, 12, 16, 24)  # likewise of lags, in tokens
# Of a copy, before anything is known: by the bin of its match.
COPIED = (0.05, 0.3, 0.4, 0.45, 0.55, 0.6, 0.7, 0.8, 0.85, 0.92, 0.95)
PRIOR_UNSURE = 0.7  # for guesses without a confidence
# A coarser bin counts as this many observations of the next finer one; the source's own estimate
# as many of the coarsest.
PRIOR_WEIGHTS = (4.0, 8.0, 16.0)
FADE = 0.998  # an observation's weight at the next one: models differ from topic to topic
LEAST = 0.001  # nothing is impossible
MOST = 0.999  # nothing is certain


class Guess(NamedTuple):
    """What is known of a guess before the target answers.

    Attributes:
        rank: 0 for the source's first choice, 1 for its second, ...
        confidence, matched: see `Drafted`.
        lag: tokens from the last position that the target had answered up to the guess, when it was
            made, less one: 1 right behind a tip whose parent was answered last.
    """

    source: Source
    rank: int
    confidence: float | None
    matched: int = 0
    lag: int = 1


class Confidence:
    """Turns what is known of a guess into a chance of acceptance.

    All generations with one pair of models share it: each learns from the others.

    Every guess belongs to several bins, from a coarse one to a fine one. The finest has the last
    word as far as it has seen enough: each has the next coarser one as its prior.
    """

    def __init__(self) -> None:
        self._accepted: defaultdict[Hashable, FadingMean] = defaultdict(lambda: FadingMean(FADE))

    def chance(self, guess: Guess) -> float:
        """Return the chance that a guess is committed, if the text gets to its place."""
        chance = _prior(guess)
        for bin, weight in zip(_bins(guess), PRIOR_WEIGHTS, strict=False):
            if bin in self._accepted:
                chance = self._accepted[bin].with_prior(chance, weight)
        return min(max(chance, LEAST), MOST)

    def observe(self, guess: Guess, accepted: bool) -> None:
        """Learn from a guess at a place that the text got to."""
        for bin in _bins(guess):
            self._accepted[bin].add(accepted)


def _prior(guess: Guess) -> float:
    if guess.source is Source.COPY:
        share = 1.0 if guess.confidence is None else guess.confidence
        return COPIED[bisect(MATCHED, guess.matched)] * share
    return PRIOR_UNSURE if guess.confidence is None else guess.confidence


def _bins(guess: Guess) -> list[Hashable]:
    """Return the bins that a guess belongs to, the coarsest first."""
    sure = None if guess.confidence is None else bisect(EDGES, guess.confidence)
    lag = bisect(LAGS, guess.lag)
    if guess.source is Source.COPY:
        by_match = (guess.source, guess.rank, bisect(MATCHED, guess.matched))
        return [by_match, (*by_match, sure), (*by_match, sure, lag)]
    by_sureness = (guess.source, guess.rank, sure)
    return [by_sureness, (*by_sureness, lag)]
