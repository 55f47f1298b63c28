"""Key tokens strictly, others within a bound that can be counted."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.adaptive import BUDGET_TOKENS, Adaptive
from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.rules.relaxed import Miss, Relaxed
from swarm.decoding.rules.signals import top1_gap
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling

WORDS = [" so", " then", " and", "7", " not", "```"]
SO, THEN, AND, SEVEN, NOT, FENCE = range(len(WORDS))


def decode(ids):
    return "".join(WORDS[i] for i in ids)


LEXICON = Lexicon(decode)


def logits(**probabilities):
    """Log-probabilities of some words; the others share one part in ten thousand."""
    row = torch.full((len(WORDS),), 1e-4 / len(WORDS))
    for name, p in probabilities.items():
        row[{"so": SO, "then": THEN, "and_": AND, "seven": SEVEN, "not_": NOT}[name]] = p
    return row.log()


def miss(choice=SO, drafted=THEN, target=None, draft=None, history=(AND,)):
    target = logits(so=0.5, then=0.4) if target is None else target
    return Miss(history, choice, Drafted(drafted, draft), target, Sampling())


def test_a_near_tie_of_ordinary_words_passes_and_says_what_it_costs():
    verdict = Adaptive(LEXICON).verdict(miss())
    assert verdict == (True, "0.22 nats less likely", False)


@pytest.mark.parametrize(
    ("choice", "drafted", "kind"),
    [(SEVEN, THEN, "number"), (SO, SEVEN, "number"), (NOT, SO, "negation"), (SO, NOT, "negation")],
)
def test_key_tokens_are_key_on_either_side(choice, drafted, kind):
    target = torch.full((len(WORDS),), 1 / len(WORDS)).log()
    assert Adaptive(LEXICON).verdict(miss(choice, drafted, target)) == (False, kind, True)


def test_in_code_every_token_is_key():
    adaptive = Adaptive(LEXICON)
    assert adaptive.verdict(miss(history=(FENCE, AND))) == (False, "code", True)
    assert adaptive.verdict(miss(history=(FENCE, AND, FENCE))).passes


@pytest.mark.parametrize(
    ("setting", "target", "draft", "reason"),
    [
        ({"gap": 0.05}, None, None, "the target is sure"),
        (
            {"contrast": 0.1},
            None,
            logits(so=0.25, then=0.25, and_=0.25, not_=0.25),
            "the draft is unsure",
        ),
        ({"agreement": 0.5}, None, logits(and_=0.99), "the models disagree"),
    ],
)
def test_each_signal_marks_a_position_as_key(setting, target, draft, reason):
    asked = miss(target=target, draft=draft)
    assert Adaptive(LEXICON, **setting).verdict(asked) == (False, reason, True)
    off = Adaptive(LEXICON, gap=1, contrast=20, agreement=0)
    assert off.verdict(asked).passes


def test_high_entropy_alone_lets_nothing_pass():
    flat = logits(so=0.3, then=0.02, and_=0.34, seven=0.17, not_=0.17)
    assert Adaptive(LEXICON, tau=0.5).verdict(miss(target=flat)) == (
        False,
        "2.71 nats less likely",
        False,
    )


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
def test_in_greedy_decoding_tau_bounds_the_gap(tau):
    rng = torch.Generator().manual_seed(3)
    rows = (torch.randn(2000, 6, generator=rng) * 2).log_softmax(-1)
    misses = [
        (row, drafted)
        for row in rows
        for drafted in range(6)
        if 0 < row.max() - row[drafted] <= tau
    ]
    most = max(top1_gap(row) for row, _ in misses)
    assert 0.7 * math.tanh(tau / 2) < most <= math.tanh(tau / 2) + 1e-6
    two = torch.tensor([0.0, -tau]).log_softmax(-1)
    assert top1_gap(two) == pytest.approx(math.tanh(tau / 2))


def test_what_is_less_likely_than_tau_is_no_near_tie():
    asked = miss(target=logits(so=0.6, then=0.2))
    assert not Adaptive(LEXICON, tau=1.0).verdict(asked).passes
    assert Adaptive(LEXICON, tau=1.2).verdict(asked).passes


def test_the_budget_is_for_a_hundred_tokens_in_a_row():
    adaptive = Adaptive(LEXICON, budget=0.5)
    at = [
        adaptive.verdict(miss(history=(AND,) * position)).passes
        for position in (5, 6, 7, 104, 105, 106)
    ]
    assert at == [True, True, False, False, True, True]
    assert adaptive.verdict(miss(history=(AND,) * 107)).reason == "the budget is spent"


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0.1, 5), st.lists(st.tuples(st.integers(0, 30), st.floats(0.05, 0.5)), max_size=60)
)
def test_no_hundred_tokens_cost_more_than_the_budget(budget, steps):
    adaptive = Adaptive(LEXICON, tau=20, budget=budget, gap=1)
    position, costs = 0, {}
    for step, p in steps:
        position += step + 1
        asked = miss(target=logits(so=0.5, then=p), history=(AND,) * position)
        if adaptive.verdict(asked).passes:
            costs[position] = asked.deficit_nats
    for start in costs:
        assert (
            sum(cost for at, cost in costs.items() if start <= at < start + BUDGET_TOKENS)
            <= budget + 1e-6
        )


@settings(deadline=None)
@given(st.data(), st.sampled_from([{"tau": 0}, {"budget": 0}]), st.sampled_from([0.0, 0.7, 1.0]))
def test_without_tau_or_budget_it_is_strict(data, off, temperature):
    seed = data.draw(st.integers(0, 1000))
    sampling = Sampling(temperature, seed=seed)
    rows = torch.randn(4, len(WORDS), generator=torch.Generator().manual_seed(seed))
    drafted = [
        Drafted(token) for token in data.draw(st.lists(st.integers(0, len(WORDS) - 1), max_size=4))
    ]
    rule = Relaxed(sampling, Adaptive(LEXICON, gap=1, **off))
    tokens = [decision.token for decision in rule.judge(rows, [AND], drafted)]
    assert tokens == [decision.token for decision in Strict(sampling).judge(rows, [AND], drafted)]
    assert rule.exact
