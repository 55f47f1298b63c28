"""Rules by name."""

import pytest
import torch

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.choose import NAMES, Verification
from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.sampling import Sampling
from swarm.errors import RuleError

LEXICON = Lexicon(lambda ids: " word" * len(ids))


@pytest.mark.parametrize(
    "text", ["strict", "adaptive", "adaptive:tau=0.5,budget=8", "random:rate=0.25", "lenient:l=1"]
)
def test_a_rule_is_written_as_it_is_read(text):
    assert str(Verification.parse(text)) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_keeps_a_draft_that_is_certainly_right(name):
    logits = 100.0 * torch.eye(3)[[2, 1]]
    rule = Verification.parse(name).rule(Sampling(), LEXICON)
    decisions = rule.judge(logits, [0], [Drafted(2, logits[0])])
    assert [decision.token for decision in decisions] == [2, 1]
    assert rule.exact == (name in ("strict", "rejection"))


def test_every_generation_has_a_budget_of_its_own():
    verification = Verification.parse("adaptive:tau=5,budget=1,gap=1")
    logits = torch.tensor([[1.0, 0.1, -9.0], [1.0, 0.1, -9.0]])

    def relaxed():
        rule = verification.rule(Sampling(), LEXICON)
        return [d.origin for _ in range(2) for d in rule.judge(logits, [0], [Drafted(1)])]

    assert relaxed() == relaxed() == ["relaxed", "target", "corrected"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lazy", "the rules are strict, rejection, adaptive, near_tie, typical, lenient, random"),
        ("strict:tau=1", "strict has no settings"),
        ("adaptive:rate=1", "adaptive has the settings tau, budget, gap, contrast, agreement"),
        ("adaptive:tau", "'tau' is not KEY=NUMBER"),
        ("adaptive:tau=much", "'tau=much' is not KEY=NUMBER"),
        ("adaptive:tau=-1", "give tau from 0 to 20"),
        ("adaptive:tau=nan", "give tau from 0 to 20"),
        ("random:rate=2", "give rate from 0 to 1"),
        ("lenient:l=0", "give l from 1e-06 to 1"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(text, words):
    with pytest.raises(RuleError) as caught:
        Verification.parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
