"""A trial convicts liars and no honest peer, whatever they do: hypothesis plays all sides."""

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.audit.trial import FIRST, SECOND, THIRD, Run, StageParties, Trial, TrialOutcome

HONEST, STEADY, NOISY, RARE = "honest", "steady", "noisy", "rare"


@dataclass
class World:
    """Answers are what the parties of a run did to the truth: equal if all did the same."""

    stage_parties: list[StageParties]
    habits: dict[str, str]
    chance: random.Random

    def answer(self, run: Run) -> tuple[object, ...]:
        return tuple(
            lie
            for i, which in enumerate(run)
            for peer in self.stage_parties[i].party(which)
            for lie in self._lies(peer)
        )

    def _lies(self, peer: str) -> list[object]:
        habit = self.habits.get(peer, HONEST)
        if habit == NOISY or (habit == RARE and self.chance.random() < 0.3):
            return [(peer, self.chance.random())]
        return [peer] if habit == STEADY else []

    def audited(self) -> bool:
        """Whether an audit of a text shows a difference."""
        seconds = tuple(FIRST if stage.second is None else SECOND for stage in self.stage_parties)
        self.answers = [self.answer(tuple(FIRST for _ in self.stage_parties)), self.answer(seconds)]
        return self.answers[0] != self.answers[1]

    def judge(self) -> TrialOutcome:
        trial, answers = Trial(self.stage_parties), list(self.answers)
        while trial.step is not None:
            answers.append(self.answer(trial.step.run))
            trial.tell([answers[-1] == answers[other] for other in trial.step.against])
        assert trial.outcome is not None
        return trial.outcome


def stage_parties(stages: int, parties: int = 3) -> list[StageParties]:
    return [StageParties(*((f"{name}{i}",) for name in "abc"[:parties])) for i in range(stages)]


peers = st.builds(lambda name, stage: f"{name}{stage}", st.sampled_from("abc"), st.integers(0, 2))


@given(liar=peers, habit=st.sampled_from([STEADY, NOISY]), seed=st.integers(0, 10**6))
def test_one_liar_is_convicted(liar: str, habit: str, seed: int) -> None:
    world = World(stage_parties(3), {liar: habit}, random.Random(seed))
    assert world.audited() == (liar[0] != "c")
    if liar[0] != "c":
        assert world.judge() == TrialOutcome(convicted=(liar,))


@settings(max_examples=300)
@given(
    habits=st.dictionaries(peers, st.sampled_from([STEADY, NOISY]), max_size=9),
    parties=st.integers(2, 3),
    stages=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_no_honest_peer_is_convicted_and_some_peer_is_named(
    habits: dict[str, str], parties: int, stages: int, seed: int
) -> None:
    """Any number of liars that do not conspire."""
    world = World(stage_parties(stages, parties), habits, random.Random(seed))
    if not world.audited():
        return
    outcome = world.judge()
    assert all(peer in habits for peer in outcome.convicted)
    named = [
        *([frozenset(outcome.convicted)] if outcome.convicted else []),
        *outcome.suspected,
        *outcome.disputed,
    ]
    assert named
    assert any(group & habits.keys() for group in named)


def test_a_rare_liar_hardly_ever_has_another_peer_convicted() -> None:
    wrong = trials = 0
    for seed in range(20_000):
        world = World(stage_parties(2), {"a0": RARE}, random.Random(seed))
        if world.audited():
            trials += 1
            wrong += any(peer != "a0" for peer in world.judge().convicted)
    assert trials > 5000
    assert wrong == 0


def test_what_cannot_be_reproduced_makes_the_writers_suspect() -> None:
    trial = Trial(stage_parties(2), gone=frozenset({"z"}))
    assert trial.step is not None
    assert trial.step.run == (FIRST, FIRST)
    trial.tell([False, True])
    assert trial.outcome == TrialOutcome(suspected=(frozenset({"a0", "a1", "z"}),))


def test_two_that_accuse_each_other_are_both_suspect() -> None:
    world = World(stage_parties(2, parties=2), {"a0": STEADY}, random.Random(0))
    assert world.audited()
    assert world.judge() == TrialOutcome(disputed=(frozenset({"a0", "b0"}),))


def test_a_neighbour_that_cannot_be_exchanged_may_be_the_liar() -> None:
    """It lies to one of three, and knows by its neighbour when."""
    fixed = [StageParties(("a0",), ("b0",), ("c0",)), StageParties(("x",))]
    trial, lies = Trial(fixed), [False, True]
    while trial.step is not None:
        lies.append(trial.step.run == (SECOND, FIRST))
        trial.tell([lies[-1] == lies[other] for other in trial.step.against])
    assert trial.outcome == TrialOutcome(disputed=(frozenset({"a0", "b0", "c0", "x"}),))


def test_runs_that_fail_prove_nothing() -> None:
    for failing in range(20):
        world = World(stage_parties(2), {"a0": STEADY}, random.Random(0))
        world.audited()
        trial, answers = Trial(world.stage_parties), list(world.answers)
        while trial.step is not None:
            failed = len(answers) - 2 == failing
            answers.append(world.answer(trial.step.run))
            same = [answers[-1] == answers[other] for other in trial.step.against]
            trial.tell(None if failed else same)
        assert trial.outcome is not None
        assert set(trial.outcome.convicted) <= {"a0"}


@given(liar=peers, failing=st.sets(st.integers(2, 30)))
def test_no_answer_is_compared_with_one_that_never_came(liar: str, failing: set[int]) -> None:
    world = World(stage_parties(3), {liar: STEADY}, random.Random(0))
    if not world.audited():
        return
    trial, answers = Trial(world.stage_parties), dict(enumerate(world.answers))
    number = len(answers) - 1
    while trial.step is not None:
        number += 1
        if number in failing:
            trial.tell(None)
            continue
        answers[number] = world.answer(trial.step.run)
        trial.tell([answers[other] == answers[number] for other in trial.step.against])
    assert trial.outcome is not None
    assert set(trial.outcome.convicted) <= {liar}


def test_several_peers_that_share_a_stage_are_not_told_apart() -> None:
    shared = [StageParties(("a0",), ("b0", "b1"), ("c0",)), StageParties(("a1",), ("b2",), ("c1",))]
    world = World(shared, {"b1": STEADY}, random.Random(0))
    assert world.audited()
    assert world.judge() == TrialOutcome(disputed=(frozenset({"b0", "b1"}),))
    assert THIRD == 2
