"""Strict verification: a drafted token is accepted if the target chooses the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.rule import Decision, Needs, Rows, chosen
from swarm.decoding.sampling import Sampling


@dataclass(frozen=True)
class Strict:
    """Accepts a drafted token if it equals the target's own choice.

    Noise keyed by (seed, position, token) makes that choice a function of the logits. So the output
    is that of plain decoding, token for token, at any temperature.
    """

    sampling: Sampling
    exact = True
    needs_drawn = False
    needs = Needs.CHOICE

    def judge(
        self,
        logits: Rows,
        history: Sequence[int],
        drafted: Sequence[Drafted],
        choices: Sequence[int | None] = (),
    ) -> list[Decision]:
        decisions = []
        for i, row in enumerate(logits[: len(drafted) + 1]):
            choice = chosen(self.sampling, row, len(history) + i, choices, i)
            decisions.append(Decision(choice, drafted[i].token if i < len(drafted) else None))
            if not decisions[-1].kept:
                break
        return decisions

    def settles(self, row: PartialRow, history: Sequence[int], drafted: Drafted | None) -> bool:
        return row.choice_is_certain
