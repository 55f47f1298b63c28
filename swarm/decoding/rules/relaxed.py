"""Relaxed verification: accepts what strict verification accepts, and misses that cost little."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.rule import Decision, Needs, Rows, chosen
from swarm.decoding.sampling import Sampling


class MissVerdict(NamedTuple):
    """Whether a miss is accepted, and the reason; ``key`` if the reason is a key token."""

    passes: bool
    reason: str
    key: bool = False


@dataclass(frozen=True, eq=False)
class Miss:
    """A drafted token that is not the target's choice.

    ``logits`` and ``drafted.logits`` are ``[vocabulary]``. Probabilities are those of the sampling,
    or of the plain softmax if it is greedy. They are computed on first use: few rules need all.
    """

    history: Sequence[int]  # all tokens before it
    choice: int
    drafted: Drafted
    logits: Tensor
    sampling: Sampling

    @property
    def position(self) -> int:
        return len(self.history)

    @cached_property
    def target(self) -> Tensor:
        """log p, ``[vocabulary]`` float32; -inf where top-k or top-p leave a token out."""
        return self.sampling.log_probabilities(self.logits)

    @cached_property
    def draft(self) -> Tensor | None:
        """log q, likewise, or None where the draft has no distribution."""
        if self.drafted.logits is None:
            return None
        return self.sampling.log_probabilities(self.drafted.logits)

    @cached_property
    def log_p(self) -> float:
        """log p(drafted)."""
        return float(self.target[self.drafted.token])

    @cached_property
    def deficit_nats(self) -> float:
        """log p(choice) - log p(drafted); infinite if top-k or top-p leave the drafted token out.

        At least 0: a lucky draw of the noise earns nothing.
        """
        return max(0.0, float(self.target[self.choice]) - self.log_p)


class Relaxation(Protocol):
    """Decides which misses are accepted. One object serves one generation."""

    @property
    def exact(self) -> bool:
        """Whether it accepts no miss at all."""
        ...

    def verdict(self, miss: Miss) -> MissVerdict:
        """Decide about a miss. One that passes is committed: a relaxation may count its cost."""
        ...

    def settles(self, miss: Miss, row: PartialRow) -> bool:
        """Return whether the verdict is certainly that of the whole prediction, of which ``row`` is
        a part."""
        ...


@dataclass(frozen=True)
class Relaxed:
    """Accepts what `Strict` accepts, and the misses that the relaxation accepts."""

    sampling: Sampling
    relaxation: Relaxation
    needs = Needs.CHOICE_AND_MISSES
    needs_drawn = False

    @property
    def exact(self) -> bool:
        return self.relaxation.exact

    def judge(
        self,
        logits: Rows,
        history: Sequence[int],
        drafted: Sequence[Drafted],
        choices: Sequence[int | None] = (),
    ) -> list[Decision]:
        decisions: list[Decision] = []
        for i, row in enumerate(logits[: len(drafted) + 1]):
            choice = chosen(self.sampling, row, len(history) + i, choices, i)
            if i == len(drafted):
                decisions.append(Decision(choice, None))
                break
            token = drafted[i].token
            if token == choice:
                decisions.append(Decision(choice, choice))
                continue
            assert row is not None  # see `needs`
            before = [*history, *(decision.token for decision in decisions)]
            miss = Miss(before, choice, drafted[i], row, self.sampling)
            passes, reason, key = self.relaxation.verdict(miss)
            # No rule may accept a token that top k or top p leave out.
            if not passes or miss.log_p == -math.inf:
                decisions.append(Decision(choice, token, reason=reason, key=key))
                break
            decisions.append(Decision(token, token, choice, miss.deficit_nats, reason))
        return decisions

    def settles(self, row: PartialRow, history: Sequence[int], drafted: Drafted | None) -> bool:
        if not row.choice_is_certain:
            return False
        if drafted is None or drafted.token == row.choice or row.is_whole or self.exact:
            return True
        miss = Miss(history, row.choice, drafted, row.logits, self.sampling)
        return row.distribution_is_certain and self.relaxation.settles(miss, row)
