"""Whether a head that reads the target's states is connected as it was trained.

A wrong layer, norm or carried state fails silently: drafts are only guesses, and texts stay exact.
But such heads guess in ways of their own. Read by the wrong layer or norm, a head keeps at most
some per cent of its first tokens (leyten/shard: one layer off, 0 to 3 %). With a wrong state of its
own, which it reads from its second token on, the first stay right and all others are lost (vLLM
pull request 46075: 10 % of the second). No head that is worth its time looks like that: where the
target has just answered, published ones keep .5 to .95, and hardly less behind.
"""

from dataclasses import dataclass, field
from itertools import combinations

LAGS = 4  # the first ones are looked at
ENOUGH = 64  # guesses of a lag
LEAST_FIRST = 0.1  # kept right behind an answer; a head with less is worth nothing
LEAST_SHARE = 0.2  # of that share, further behind
MAX_CHAINS = 64  # sets of peers that are told apart
MAX_FAILED = 3  # of these, before the head is at fault
FIRST_PAUSE = 16  # texts without a head that is at fault, before it is tried again
NOT_TRUSTED = "; or a peer tells wrong outputs of its layers: with others the head is tried again"


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
    def passed(self) -> bool:
        """Whether enough was seen at every lag, and nothing is wrong."""
        return not self.failure and min(self.judged) >= ENOUGH

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
                " not read what it was trained on: is it for this model and this kind of text, and"
                " are its layers counted as its publisher does?"
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


class Calibrations:
    """The calibrations of one head, by the peers that tell the outputs of layers that it reads.

    Such outputs are checked by nothing else: a peer that invents them costs the head its guesses.
    So a head is at fault only if it fails without outputs of any peer, with two sets of peers that
    have no peer in common, or with `MAX_FAILED` sets. Until then it is left on chains with the
    peers that it has failed with.

    A head that was made for one kind of text fails at others as one that is connected wrongly does.
    So one that is at fault is tried again: `FIRST_PAUSE` texts later, and whenever it fails again,
    twice as many texts later than before.
    """

    def __init__(self) -> None:
        self._by_tellers: dict[frozenset[str], Calibration] = {}
        self._pause = FIRST_PAUSE  # texts
        self._paused = 0  # texts of it that have begun

    def begin_text(self) -> None:
        """Note that a text begins for which the head would be asked."""
        if not self.fault:
            return
        if self._paused < self._pause:
            self._paused += 1
            return
        self._by_tellers = {at: each for at, each in self._by_tellers.items() if not each.failure}
        self._pause *= 2
        self._paused = 0

    def of(self, tellers: frozenset[str]) -> Calibration:
        """Return the calibration with the outputs of these peers; no peers, for a head that reads
        answers alone."""
        found = self._by_tellers.pop(tellers, None) or Calibration()
        self._by_tellers[tellers] = found
        if len(self._by_tellers) > MAX_CHAINS:
            del self._by_tellers[next(iter(self._by_tellers))]
        return found

    @property
    def passed(self) -> bool:
        """Whether the head is connected as it was trained: one calibration has passed."""
        return any(each.passed for each in self._by_tellers.values())

    @property
    def fault(self) -> str:
        """What is wrong with the head itself, in a sentence; empty while that is not known."""
        failed = self._failed
        if not failed or self.passed:
            return ""
        apart = any(one.isdisjoint(other) for one, other in combinations(failed, 2))
        if apart or frozenset() in failed or len(failed) >= MAX_FAILED:
            return next(iter(failed.values()))
        return ""

    @property
    def doubted(self) -> frozenset[str]:
        """The peers whose outputs may have made the head fail."""
        if self.fault:
            return frozenset()
        good = [tellers for tellers, each in self._by_tellers.items() if each.passed]
        return frozenset().union(*self._failed).difference(*good)

    def failure(self, tellers: frozenset[str]) -> str:
        """Return why the head is not to be asked where these peers tell outputs, in a sentence;
        empty if it is."""
        failed = self._failed
        if not failed:
            return ""
        if fault := self.fault:
            return fault
        if tellers in failed:
            return failed[tellers] + NOT_TRUSTED
        doubted = self.passed and not self.doubted.isdisjoint(tellers)
        return next(iter(failed.values())) + NOT_TRUSTED if doubted else ""

    @property
    def _failed(self) -> dict[frozenset[str], str]:
        return {at: each.failure for at, each in self._by_tellers.items() if each.failure}
