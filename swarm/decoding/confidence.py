"""How likely a drafted token is kept, learned from how sure the draft was of it.

A draft model's own probability is a good measure of whether the target will agree (Li et al. 2024,
"EAGLE-2", section 3.2), but not the same number: it depends on the pair of models, on the rule, and
on whether the token was the draft's first choice or its second. So it is corrected by what is seen.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable

# between which measures are alike
EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
PRIOR_WEIGHT = 4.0  # the draft's own word counts as so many observations
PRIOR_UNSURE = 0.7  # for guesses without a measure, such as copies
FADE = 0.998  # what an observation counts for the next one: models differ from topic to topic
LEAST, MOST = 0.001, 0.999  # nothing is impossible, and nothing certain

_Place = tuple[int, int | None]  # rank, and which measures


class Confidence:
    """Shared by all generations with one pair of models: what one learns is good for the next."""

    def __init__(self) -> None:
        self._kept: defaultdict[_Place, float] = defaultdict(float)
        self._seen: defaultdict[_Place, float] = defaultdict(float)

    def chance(self, rank: int, sure: float | None) -> float:
        """That the draft's choice of this rank (0 is its first) is the one that is committed."""
        place = _place(rank, sure)
        prior = PRIOR_UNSURE if sure is None else sure
        chance = (self._kept[place] + PRIOR_WEIGHT * prior) / (self._seen[place] + PRIOR_WEIGHT)
        return min(max(chance, LEAST), MOST)

    def observe(self, choices: Iterable[float | None], kept: int | None) -> None:
        """Learn from a position: how sure the draft was of each of its choices, and which one was
        committed."""
        for rank, sure in enumerate(choices):
            place = _place(rank, sure)
            self._seen[place] = self._seen[place] * FADE + 1.0
            self._kept[place] = self._kept[place] * FADE + (rank == kept)


def _place(rank: int, sure: float | None) -> _Place:
    return rank, None if sure is None else bisect(EDGES, sure)
