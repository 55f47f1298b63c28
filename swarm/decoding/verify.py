"""Which drafted tokens are kept: the rule by which the client judges the target's answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from swarm.decoding.sampling import Sampling

Origin = Literal["drafted", "corrected", "target"]


@dataclass(frozen=True)
class Decision:
    """The token that is committed at a position, and the one that was drafted there, if any."""

    token: int
    drafted: int | None

    @property
    def kept(self) -> bool:
        return self.token == self.drafted

    @property
    def origin(self) -> Origin:
        """*drafted* and kept, *corrected* by the target, or the *target*'s own where nothing was drafted."""
        if self.kept:
            return "drafted"
        return "target" if self.drafted is None else "corrected"


class Rule(Protocol):
    """A way to judge drafted tokens."""

    def judge(self, logits: Tensor, position: int, drafted: Sequence[int]) -> list[Decision]:
        """Decide position by position, up to and including the first one where no drafted token is kept.

        Args:
            logits: the target's ``[n, vocabulary]``; row ``i`` predicts position ``position + i``.
            drafted: the drafted tokens from ``position`` on, at most ``n``; where there is none,
                the target chooses freely.
        """
        ...


@dataclass(frozen=True)
class Strict:
    """Keep a drafted token if it is the target's own choice. The output is what plain decoding gives."""

    sampling: Sampling

    def judge(self, logits: Tensor, position: int, drafted: Sequence[int]) -> list[Decision]:
        decisions = []
        for i, choice in enumerate(self.sampling.choose(logits[: len(drafted) + 1], position)):
            decisions.append(Decision(choice, drafted[i] if i < len(drafted) else None))
            if not decisions[-1].kept:
                break
        return decisions
