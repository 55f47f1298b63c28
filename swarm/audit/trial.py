"""Which peer of two chains lied: which chains to run next, and what their answers prove.

The *first* party of every stage wrote the text. An audit ran it over the *second* parties, where
there were any, and the answers differ. A `Trial` asks for more runs of the same tokens, each an
ordinary session:

1. The first parties once more. If they now agree with the audit, the lie cannot be reproduced: any
   of them may have told it. If they agree with what they wrote, they are the base for the runs that
   follow. If they agree with neither, the audit's chain is.
2. The base with a single stage exchanged, for each stage. Where the answer changes, the stage's two
   parties differ.
3. For each such stage its first, second and third party, beside all first and beside all second
   parties of the other stages, twice. A party is convicted if it alone differs every time. A
   neighbour that is the same in all runs could be the liar: it could lie whenever it meets that
   party. So a party whose neighbours cannot be exchanged is never convicted.

Thus an honest party is convicted only if two parties agree on the same lie, or if both of the
parties before it, or both behind it, lie whenever they meet it, and to it alone.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

FIRST, SECOND, THIRD = 0, 1, 2
WRITTEN, AUDIT = 0, 1  # numbers of the two answers that differ; those of the trial's runs follow
ROUNDS = 2

Party = tuple[str, ...]  # ids of the peers that compute a stage, one after the other
Run = tuple[int, ...]  # which party computes, for every stage


@dataclass(frozen=True)
class StageParties:
    """The parties of one stage; None where no peers are available."""

    first: Party
    second: Party | None = None
    third: Party | None = None

    def party(self, which: int) -> Party:
        party = (self.first, self.second, self.third)[which]
        assert party is not None
        return party


@dataclass(frozen=True)
class Step:
    """What to run next, and the numbers of the earlier answers to compare its answer with."""

    run: Run
    against: tuple[int, ...]


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial found.

    Attributes:
        convicted: peers that lied for certain.
        suspected: sets of peers, of each of which at least one lied.
        disputed: likewise, but the members of each accuse each other.
    """

    convicted: tuple[str, ...] = ()
    suspected: tuple[frozenset[str], ...] = ()
    disputed: tuple[frozenset[str], ...] = ()


class Trial:
    """A state machine: the caller runs `step` and calls `tell`, until there is an `outcome`.

    Args:
        stage_parties: of each stage, in order. The audit exchanged every stage that has a second
            party, at least one.
        gone: peers that had a part in the text, but no longer when it ended.
    """

    def __init__(
        self, stage_parties: Sequence[StageParties], gone: frozenset[str] = frozenset()
    ) -> None:
        self._stage_parties = tuple(stage_parties)
        self._gone = gone
        self._made = AUDIT  # number of the last answer
        self._course = self._proceed()
        self.outcome: TrialOutcome | None = None
        self.step: Step | None = next(self._course)

    def tell(self, same: Sequence[bool] | None) -> None:
        """Take the result of `step`, and proceed.

        Args:
            same: whether its answer is the same as each of those in `Step.against`; None if the run
                could not be made, which proves nothing.
        """
        try:
            self.step = self._course.send(same)
        except StopIteration as end:
            self.step = None
            self.outcome = end.value

    @property
    def _exchanged(self) -> list[int]:
        return [i for i, stage in enumerate(self._stage_parties) if stage.second is not None]

    def _proceed(self) -> Generator[Step, Sequence[bool] | None, TrialOutcome]:
        firsts = self._all(FIRST)
        seconds = self._all(SECOND)
        same = yield self._step(firsts, WRITTEN, AUDIT)
        if same is None:
            return self._suspect(firsts, seconds)
        base, number = (firsts, self._made) if same[0] else (seconds, AUDIT)
        if same[1]:
            return self._suspect(firsts)
        disputed = []
        for i in self._exchanged:
            other = SECOND if base[i] == FIRST else FIRST
            same = yield self._step(_exchange(base, i, other), number)
            if same is not None and not same[0]:
                disputed.append(i)
        convicted: list[str] = []
        unclear: list[frozenset[str]] = []
        for i in disputed:
            liar = yield from self._decide(i)
            if liar is not None and len(liar) == 1:
                convicted += liar
            else:
                unclear.append(frozenset(liar or self._may_have_lied(i)))
        if convicted:
            return TrialOutcome(tuple(convicted))
        return TrialOutcome(disputed=tuple(unclear)) if unclear else self._suspect(firsts, seconds)

    def _decide(self, i: int) -> Generator[Step, Sequence[bool] | None, Party | None]:
        """Find the party of stage ``i`` that alone differs, beside all neighbours, every time."""
        neighbours = [j for j in (i - 1, i + 1) if 0 <= j < len(self._stage_parties)]
        if self._stage_parties[i].third is None or any(
            self._stage_parties[j].second is None for j in neighbours
        ):
            return None
        suspects = {FIRST, SECOND, THIRD}
        for rest in [self._all(FIRST), self._all(SECOND)] * ROUNDS:
            if (yield self._step(_exchange(rest, i, FIRST))) is None:
                return None
            second = yield self._step(_exchange(rest, i, SECOND), self._made)
            if second is None:
                return None
            third = yield self._step(_exchange(rest, i, THIRD), self._made - 1, self._made)
            if third is None:
                return None
            suspects &= _alone(second[0], third[0], third[1])
            if not suspects:
                return None
        return self._stage_parties[i].party(suspects.pop())

    def _may_have_lied(self, i: int) -> set[str]:
        """Return the peers that may have lied where the parties of a stage differ.

        A neighbour that cannot be exchanged may have done it, too.
        """
        stage = self._stage_parties[i]
        fixed = [s.first for s in self._stage_parties[max(0, i - 1) : i + 2] if s.second is None]
        parties = [*(party for party in (stage.first, stage.second, stage.third) if party), *fixed]
        return {peer for party in parties for peer in party}

    def _all(self, which: int) -> Run:
        return tuple(which if stage.second is not None else FIRST for stage in self._stage_parties)

    def _step(self, run: Run, *against: int) -> Step:
        self._made += 1
        return Step(run, against)

    def _suspect(self, *runs: Run) -> TrialOutcome:
        """Suspect all peers that had a part in these runs, or in the text."""
        peers = {
            peer
            for run in runs
            for i, which in enumerate(run)
            for peer in self._stage_parties[i].party(which)
        }
        return TrialOutcome(suspected=(frozenset(peers) | self._gone,))


def _exchange(run: Run, i: int, which: int) -> Run:
    return (*run[:i], which, *run[i + 1 :])


def _alone(first_second: bool, first_third: bool, second_third: bool) -> set[int]:
    """Return which of three differs from both others, which agree."""
    if first_second + first_third + second_third != 1:
        return set()
    if first_second:
        return {THIRD}
    return {SECOND} if first_third else {FIRST}
