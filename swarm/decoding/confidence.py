"""The chance that a drafted token is accepted, learned from the draft's own confidence.

A draft model's own probability predicts well whether the target agrees (Li et al. 2024, "EAGLE-2",
section 3.2). The chance of acceptance is another number: it depends on the pair of models, on the
rule, and on whether the token was the draft's first choice or its second. So it is learned.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable

from swarm.util.averages import FadingMean

EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the bins
PRIOR_WEIGHT = 4.0  # the draft's own confidence counts as this many observations
PRIOR_UNSURE = 0.7  # for guesses without a confidence, such as copies
FADE = 0.998  # an observation's weight at the next one: models differ from topic to topic
LEAST = 0.001  # nothing is impossible
MOST = 0.999  # nothing is certain

_Bin = tuple[int, int | None]  # rank, and the interval between two `EDGES`; None without confidence


class Confidence:
    """Turns a draft's confidence into a chance of acceptance.

    All generations with one pair of models share it: each learns from the others.
    """

    def __init__(self) -> None:
        self._accepted: defaultdict[_Bin, FadingMean] = defaultdict(lambda: FadingMean(FADE))

    def chance(self, rank: int, confidence: float | None) -> float:
        """Return the chance that the draft's choice of this rank (0 is its first) is committed."""
        prior = PRIOR_UNSURE if confidence is None else confidence
        chance = self._accepted[_bin(rank, confidence)].with_prior(prior, PRIOR_WEIGHT)
        return min(max(chance, LEAST), MOST)

    def observe(self, choices: Iterable[float | None], accepted: int | None) -> None:
        """Learn from one position.

        Args:
            choices: the draft's confidence in each of its choices there, by rank.
            accepted: the rank of the choice that was committed, if one was.
        """
        for rank, confidence in enumerate(choices):
            self._accepted[_bin(rank, confidence)].add(rank == accepted)


def _bin(rank: int, confidence: float | None) -> _Bin:
    return rank, None if confidence is None else bisect(EDGES, confidence)
