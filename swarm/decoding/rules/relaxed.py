"""Relaxed verification: what strict verification keeps, and those misses that a relaxation lets
pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Decision
from swarm.decoding.sampling import Sampling


class Verdict(NamedTuple):
    """Whether a miss passes, and why (not); ``key`` if the reason is that it is a key token."""

    passes: bool
    reason: str
    key: bool = False


@dataclass(frozen=True, eq=False)
class Miss:
    """A drafted token that is not the target's choice.

    ``logits`` and ``drafted.logits`` are ``[vocabulary]``; probabilities are those of the sampling
    (of the plain softmax where it is greedy), computed when they are asked for: most positions are
    no misses.
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
        return (
            None
            if self.drafted.logits is None
            else self.sampling.log_probabilities(self.drafted.logits)
        )

    @cached_property
    def log_p(self) -> float:
        """log p(drafted)."""
        return float(self.target[self.drafted.token])

    @cached_property
    def deficit_nats(self) -> float:
        """log p(choice) - log p(drafted), infinite where the drafted token is left out; at least 0,
        so that a lucky draw of the noise earns nothing."""
        return max(0.0, float(self.target[self.choice]) - self.log_p)


class Relaxation(Protocol):
    """Says which misses pass. One object serves one generation: a miss that passes is committed."""

    @property
    def exact(self) -> bool:
        """Whether it lets nothing pass."""
        ...

    def verdict(self, miss: Miss) -> Verdict: ...


@dataclass(frozen=True)
class Relaxed:
    """Keeps what `Strict` keeps and what the relaxation lets pass."""

    sampling: Sampling
    relaxation: Relaxation

    @property
    def exact(self) -> bool:
        return self.relaxation.exact

    def judge(
        self, logits: Tensor, history: Sequence[int], drafted: Sequence[Drafted]
    ) -> list[Decision]:
        decisions: list[Decision] = []
        for i, row in enumerate(logits[: len(drafted) + 1]):
            (choice,) = self.sampling.choose(row[None], len(history) + i)
            if i == len(drafted):
                decisions.append(Decision(choice, None))
                break
            if drafted[i].token == choice:
                decisions.append(Decision(choice, choice))
                continue
            before = [*history, *(decision.token for decision in decisions)]
            miss = Miss(before, choice, drafted[i], logits[i], self.sampling)
            passes, reason, key = self.relaxation.verdict(miss)
            # what top k and top p leave out, no rule lets in
            if not passes or miss.log_p == -math.inf:
                decisions.append(Decision(choice, drafted[i].token, reason=reason, key=key))
                break
            decisions.append(
                Decision(drafted[i].token, drafted[i].token, choice, miss.deficit_nats, reason)
            )
        return decisions
