"""Rejection sampling draws several positions from the target's distribution; bias is found."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from swarm.decoding.confidence import Confidence
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.rules.rejection import Rejection
from swarm.decoding.rules.rule import Decision
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import NoisePurpose, Sampling, uniform

VOCABULARY, LENGTH, RUNS = 3, 3, 1000


def model(name):
    """A distribution after every prefix, without a pattern: logits by prefix."""
    generator = torch.Generator().manual_seed({"target": 5, "draft": 6}[name])
    prefixes = [
        prefix for n in range(LENGTH + 1) for prefix in product(range(VOCABULARY), repeat=n)
    ]
    return {prefix: 1.5 * torch.randn(VOCABULARY, generator=generator) for prefix in prefixes}


TARGET, DRAFT = model("target"), model("draft")


def generate(rule, window, guess):
    """Decode as the decoder does: draft a window, judge it, go on behind the committed tokens."""
    text = ()
    while len(text) < LENGTH:
        path, drafted = text, []
        for _ in range(min(window, LENGTH - len(text))):
            drafted.append(guess(rule.sampling, path))
            path += (drafted[-1].token,)
        rows = torch.stack(
            [TARGET[path[: len(text) + i]] for i in range(len(drafted) + (len(path) < LENGTH))]
        )
        text += tuple(decision.token for decision in rule.judge(rows, text, drafted))
    return text


def from_a_model(sampling, prefix):
    """The same noise as the target's choice: what a draft model does here."""
    logits = DRAFT[prefix]
    return Drafted(sampling.choose(logits[None], len(prefix))[0], logits)


def from_nowhere(_, prefix):
    return Drafted((len(prefix) + sum(prefix)) % VOCABULARY)


def beside_a_copy(drawn):
    """What is judged of a model's guess and of a copy, which is as likely as two tokens of three.

    See `DraftNode.proposal`.
    """

    def guess(sampling, prefix):
        tree, model = DraftTree(DraftNode(0, 0)), from_a_model(sampling, prefix)
        sure = float(sampling.probabilities(model.logits)[model.token])
        tree.grow(tree.tip, [replace(model, confidence=sure)], Confidence())
        copied = Drafted(0, source=Source.COPY, matched=5)
        tree.grow(tree.tip, [copied], Confidence(), source=Source.COPY, branches=2)
        return tree.tip.proposal(drawn)

    return guess


def p_value(rule_class, window, guess, **sampling):
    """That the texts of RUNS seeds were drawn from the target: chi-square over all texts."""
    how = Sampling(**sampling)
    counts = Counter(
        generate(rule_class(Sampling(**sampling, seed=seed)), window, guess) for seed in range(RUNS)
    )
    expected = {}
    for text in product(range(VOCABULARY), repeat=LENGTH):
        expected[text] = RUNS * float(
            torch.stack(
                [how.probabilities(TARGET[text[:i]])[token] for i, token in enumerate(text)]
            ).prod()
        )
    assert set(counts) <= {text for text, count in expected.items() if count > 0}
    usual = [text for text, count in expected.items() if count >= 5]
    seen = [counts[text] for text in usual] + [RUNS - sum(counts[text] for text in usual)]
    due = [expected[text] for text in usual] + [RUNS - sum(expected[text] for text in usual)]
    if due[-1] < 5:  # too few for a bin of their own
        seen[-2:], due[-2:] = [sum(seen[-2:])], [sum(due[-2:])]
    return chisquare(seen, [count * sum(seen) / sum(due) for count in due]).pvalue


@pytest.mark.parametrize(
    ("window", "guess", "sampling"),
    [
        (1, from_a_model, {"temperature": 1.0}),
        (3, from_a_model, {"temperature": 1.0}),
        (2, from_a_model, {"temperature": 0.7, "top_k": 2}),
        (2, from_nowhere, {"temperature": 1.0}),
        (2, beside_a_copy(Rejection.needs_drawn), {"temperature": 1.0}),
    ],
)
def test_texts_are_distributed_as_the_targets_own(window, guess, sampling):
    assert p_value(Rejection, window, guess, **sampling) > 1e-4


class TooKind(Rejection):
    """A planted bias: accepts a little too often."""

    def judge(self, logits, history, drafted, choices=()):
        decisions = super().judge(logits, history, drafted, choices)
        at = len(decisions) - 1
        missed = decisions[at].drafted is not None and not decisions[at].kept
        if missed and uniform(self.sampling.seed, len(history) + at, NoisePurpose.CHOICE) < 0.15:
            decisions[at] = Decision(decisions[at].drafted, decisions[at].drafted)
        return decisions


class Forgetful(Rejection):
    """A planted bias: redraws from the target instead of from what the draft left over."""

    def judge(self, logits, history, drafted, choices=()):
        decisions = super().judge(logits, history, drafted, choices)
        at = len(decisions) - 1
        if decisions[at].drafted is not None and not decisions[at].kept:
            position, row = len(history) + at, self.sampling.log_probabilities(logits[at])
            decisions[at] = Decision(
                self.sampling.draw(row, position, NoisePurpose.REDRAW), decisions[at].drafted
            )
        return decisions


@pytest.mark.parametrize("biased", [TooKind, Forgetful])
def test_a_biased_rule_is_found_out(biased):
    assert p_value(biased, 2, from_a_model, temperature=1.0) < 1e-6


def test_to_judge_the_likelier_of_a_copy_and_a_drawn_token_is_biased():
    """Likely tokens would be judged by their distribution, and unlikely ones never."""
    assert p_value(Rejection, 2, beside_a_copy(drawn=False), temperature=1.0) < 1e-6


def test_greedily_it_is_strict():
    rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    best = rows.argmax(-1).tolist()
    for tokens in ([], best[:2], best[:3], [best[0], (best[1] + 1) % 5, 0]):
        drafted = [Drafted(token, torch.eye(5)[token]) for token in tokens]
        said = [(d.token, d.drafted) for d in Rejection(Sampling()).judge(rows, [0], drafted)]
        assert said == [(d.token, d.drafted) for d in Strict(Sampling()).judge(rows, [0], drafted)]
