"""Verifying drafts: deciding what follows the tip by what is known of the target's answers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from swarm.decoding.candidates import CandidateRow
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.partial import PartialRow
from swarm.decoding.rules.rule import Decision, Rule
from swarm.decoding.shaping import Shaping


class Verifier:
    """A rule and the shaping of the logits that it judges by.

    Args:
        rule: judges drafted tokens.
        shaping: penalties and biases, applied to the target's logits before they are judged.

    Attributes:
        likelihoods: the log probabilities of what is decided are told, too.
    """

    def __init__(self, rule: Rule, shaping: Shaping) -> None:
        self.rule = rule
        self.shaping = shaping
        self.likelihoods = False

    def may_judge(self, node: DraftNode) -> bool:
        """Return whether the rule can judge what follows a node by its logits or its choice."""
        return node.suffices(self.rule.needs)

    def decide(self, tip: DraftNode, text: Sequence[int]) -> list[Decision]:
        """Judge what follows the tip as far as it can be judged now; [] if it cannot.

        Args:
            text: all committed tokens; the tip is the last one.
        """
        if tip.told is not None:
            return self._decide_from(tip.told, tip, text)
        return self._decide_line(tip, text) if self.may_judge(tip) else []

    def _decide_line(self, tip: DraftNode, text: Sequence[int]) -> list[Decision]:
        """Judge the main line as far as the target has answered."""
        line = takewhile(lambda each: self.may_judge(each[0]), tip.line(self.rule.needs_drawn))
        answered, proposals = zip(*line, strict=True)
        drafted = [proposal for proposal in proposals if proposal]
        shaped = self.shaping.apply_known(
            [node.logits for node in answered], text, [node.token for node in answered[1:]]
        )
        choices = [node.choice for node in answered]
        decisions = self.rule.judge(shaped, text, drafted, choices)
        told = zip(decisions, shaped, answered, strict=False)
        return [
            replace(each, logits=row, raw=node.logits, hidden=node.hidden)
            for each, row, node in told
        ]

    def _decide_from(
        self, told: CandidateRow, tip: DraftNode, text: Sequence[int]
    ) -> list[Decision]:
        """Judge what follows the tip by what was told of it; [] if that does not decide."""
        row = PartialRow(told, text, self.shaping, self.rule.sampling)
        drafted = tip.proposal(self.rule.needs_drawn)
        if not self.rule.settles(row, text, drafted):
            return []
        if self.likelihoods and not row.log_probabilities_are_certain:
            return []
        guesses = [drafted] if drafted else []
        (decision,) = self.rule.judge(row.logits[None], text, guesses, [row.choice])
        told_of = row.at_temperature_one() if self.likelihoods else None
        return [replace(decision, logits=told_of)]
