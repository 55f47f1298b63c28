"""Whether a head that reads the target's states is connected as it was trained.

A wrong layer, norm or carried state fails silently: drafts are only guesses, and texts stay exact.
But such heads guess in ways of their own. Read by the wrong layer or norm, a head keeps at most
some per cent of its first tokens (leyten/shard: one layer off, 0 to 3 %). With a wrong state of its
own, which it reads from its second token on, the first stay right and all others are lost (vLLM
pull request 46075: 10 % of the second). No head that is worth its time looks like that: where the
target has just answered, published ones keep .5 to .95, and hardly less behind.
"""

from dataclasses import dataclass, field

LAGS = 4  # the first ones are looked at
ENOUGH = 64  # guesses of a lag
LEAST_FIRST = 0.1  # kept right behind an answer; a head with less is worth nothing
LEAST_SHARE = 0.2  # of that share, further behind


@dataclass
class Calibration:
    """The first choices of a head at the first texts, by lag (`Guess.lag`).

    Attributes:
        judged, kept: how many were judged and accepted, at lags 1 to LAGS.
        failure: what is wrong, in a sentence; empty while nothing is.
    """

    judged: list[int] = field(default_factory=lambda: [0] * LAGS)
    kept: list[int] = field(default_factory=lambda: [0] * LAGS)
    failure: str = ""

    @property
    def rates(self) -> tuple[float | None, ...]:
        """The share that was accepted at each lag; None where none was judged."""
        pairs = zip(self.kept, self.judged, strict=True)
        return tuple(kept / judged if judged else None for kept, judged in pairs)

    @property
    def over(self) -> bool:
        """Whether enough was seen at every lag."""
        return min(self.judged) >= ENOUGH

    def observe(self, lag: int, accepted: bool) -> None:
        """Note what became of a first choice, at a place that the text got to."""
        if lag > LAGS or self.failure:
            return
        self.judged[lag - 1] += 1
        self.kept[lag - 1] += accepted
        if self.judged[lag - 1] == ENOUGH:
            self.failure = self._failure()

    def _failure(self) -> str:
        first, *others = self._settled()
        if first is None:
            return ""
        if first < LEAST_FIRST:
            return (
                f"{first:.0%} of the head's guesses right behind an answer are right, so it does"
                " not read what it was trained on: is it for this model, and are its layers"
                " counted as its publisher does?"
            )
        for lag, rate in enumerate(others, 2):
            if rate is not None and rate < LEAST_SHARE * first:
                return (
                    f"{first:.0%} of the head's guesses right behind an answer are right, and"
                    f" {rate:.0%} at {lag} tokens behind one, so it does not go on with the states"
                    " that it was trained on"
                )
        return ""

    def _settled(self) -> list[float | None]:
        """Return the rates of which enough is known."""
        return [
            rate if judged >= ENOUGH else None
            for rate, judged in zip(self.rates, self.judged, strict=True)
        ]
