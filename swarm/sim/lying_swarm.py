"""A small swarm in which one peer lies, and a client that audits it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.audit.ledger import Ledger
from swarm.audit.tolerance import distances, tolerance
from swarm.audit.trial import AUDIT, FIRST, SECOND, WRITTEN, Run, StageParties, Trial
from swarm.model.span import Span
from swarm.sim.lab import STAGES, FrameSizes, Lab, written
from swarm.sim.lies import LyingSpan

NAMES = "abc"  # three peers for each stage
LIAR = "a1"
RATE = 0.01  # of audits, in the long run


@dataclass
class Detection:
    """How a liar fared.

    Attributes:
        noticed: windows that it computed until the first disagreement.
        banned: windows that it computed until it was banned; None if it was not.
        innocent: honest peers that were banned.
    """

    noticed: int
    banned: int | None
    innocent: int


@dataclass(frozen=True)
class Liar:
    """A peer of the second stage that lies in a share of its frames.

    Attributes:
        replay: the frames in which audits are sent.
    """

    name: str
    span: Span
    share: float = 1.0
    replay: FrameSizes = written


class LyingSwarm:
    """Three peers for each stage, one of which lies, and a client.

    Texts go over chains as the router makes them; the liar is the fastest peer, and the others are
    equal.
    """

    def __init__(self, lab: Lab, honest: Sequence[Span], liar: Liar, seed: int) -> None:
        self._lab = lab
        self._honest = honest
        self._lying = liar
        self._rng = random.Random(seed)
        torch.manual_seed(seed)
        self._tolerance = tolerance({str(honest[0].dtype).removeprefix("torch.")}, experts=False)
        self._ledger = Ledger()
        self._banned: list[str] = []

    def write(self, most_texts: int) -> Detection:
        """Write texts until the liar is banned, at most ``most_texts``."""
        seen = 0
        noticed: int | None = None
        for _ in range(most_texts):
            text = self._rng.randrange(len(self._lab.texts))
            chain = self._chain()
            tokens, prompt = self._lab.texts[text]
            sizes = written(tokens, prompt, self._rng)
            answer = self._answer(chain, text, sizes)
            seen += (len(sizes) - 1) * (LIAR in chain)
            audited = self._rng.random() < self._ledger.chance(chain, RATE)
            if audited and self._audit(chain, text, answer, len(sizes)) and noticed is None:
                noticed = seen
            if LIAR in self._banned:
                break
        return Detection(
            noticed=seen if noticed is None else noticed,
            banned=seen if LIAR in self._banned else None,
            innocent=sum(peer != LIAR for peer in self._banned),
        )

    def _chain(self) -> list[str]:
        """Return a chain with the liar if it may take part, and random other peers."""
        free = [[peer for peer in stage if peer not in self._banned] for stage in _peers()]
        for worse in self._ledger.worse:
            free = [[peer for peer in there if peer != worse] or there for there in free]
        while True:
            chain = [LIAR if LIAR in there else self._rng.choice(there) for there in free]
            doubtful = [peer for peer in self._ledger.suspects if peer in chain][:-1]
            crowded = [
                (peer, there)
                for peer in doubtful
                for there in free
                if peer in there and len(there) > 1
            ]
            if not crowded:
                return chain
            peer, there = crowded[0]
            there.remove(peer)

    def _answer(self, chain: Sequence[str], text: int, sizes: Sequence[int]) -> Tensor:
        lies = [self._rng.random() < self._lying.share for _ in sizes]
        if LIAR not in chain or not any(lies):
            return self._lab.honest(self._honest, text)
        if isinstance(self._lying.span, LyingSpan):
            self._lying.span.plan = lies
        return self._lab.run([self._honest[0], self._lying.span], self._lab.texts[text][0], sizes)

    def _audit(self, chain: list[str], text: int, answer: Tensor, count: int) -> bool:
        """Audit a text of ``count`` windows; return whether the answers differed."""
        tokens, prompt = self._lab.texts[text]
        stage_parties = [self._parties_of(first, i) for i, first in enumerate(chain)]
        if all(stage.second is None for stage in stage_parties):
            return False
        positions = self._lab.sample(range(prompt - 1, len(tokens)))

        def run(which: Run) -> Tensor:
            peers = [stage.party(each)[0] for stage, each in zip(stage_parties, which, strict=True)]
            sizes = self._lying.replay(tokens, prompt, self._rng)
            return self._answer(peers, text, sizes)[positions]

        def same(one: Tensor, other: Tensor) -> bool:
            return self._tolerance.holds(distances(one, other))

        seconds = tuple(FIRST if stage.second is None else SECOND for stage in stage_parties)
        answers = {WRITTEN: answer[positions], AUDIT: run(seconds)}
        if same(answers[WRITTEN], answers[AUDIT]):
            checked = [stage.first[0] for stage in stage_parties if stage.second is not None]
            self._ledger.agreed(checked, min(count, len(positions)))
            return False
        trial = Trial(stage_parties)
        while trial.step is not None:
            number = len(answers)
            answers[number] = run(trial.step.run)
            trial.tell([same(answers[other], answers[number]) for other in trial.step.against])
        self._punish(trial)
        return True

    def _punish(self, trial: Trial) -> None:
        assert trial.outcome is not None
        for peer in trial.outcome.convicted:
            self._ledger.convicted(peer)
            self._banned.append(peer)
        for group in trial.outcome.suspected:
            self._banned += self._ledger.disagreed(group)
        for group in trial.outcome.disputed:
            self._banned += self._ledger.disagreed(group, dispute=True)

    def _parties_of(self, first: str, stage: int) -> StageParties:
        avoid = {first, *self._banned, *self._ledger.suspects}
        others = [(peer,) for peer in _peers()[stage] if peer not in avoid]
        self._rng.shuffle(others)
        return StageParties((first,), *others[:2])


def _peers() -> list[list[str]]:
    """Return the ids of all peers, by stage."""
    return [[f"{name}{i}" for name in NAMES] for i in range(len(STAGES))]
