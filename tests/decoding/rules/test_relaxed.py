"""Relaxed verification accepts what strict verification accepts, and some misses."""

import math

import pytest
import torch

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.relaxed import Miss, MissVerdict, Relaxed
from swarm.decoding.rules.rule import Decision
from swarm.decoding.sampling import Sampling


class Passing:
    """Lets some tokens pass, and remembers what it was asked."""

    exact = False

    def __init__(self, *tokens):
        self.tokens = tokens
        self.asked = []

    def verdict(self, miss):
        self.asked.append((miss.position, list(miss.history), miss.choice, miss.drafted.token))
        return MissVerdict(
            miss.drafted.token in self.tokens, "because", key=miss.drafted.token == 9
        )


def rows(*choices, vocabulary=10):
    return 3.0 * torch.nn.functional.one_hot(torch.tensor(choices), vocabulary)


def guesses(*tokens):
    return [Drafted(token) for token in tokens]


def judge(relaxation, logits, drafted, sampling=None):
    return Relaxed(sampling or Sampling(), relaxation).judge(logits, [8, 8], drafted)


def test_what_the_target_would_say_needs_no_leniency():
    relaxation = Passing()
    assert judge(relaxation, rows(3, 1, 4), guesses(3, 1)) == [
        Decision(3, 3),
        Decision(1, 1),
        Decision(4, None),
    ]
    assert relaxation.asked == []


def test_a_miss_that_passes_is_kept_and_the_judgement_goes_on_behind_it():
    relaxation = Passing(5)
    decisions = judge(relaxation, rows(3, 1, 4), guesses(3, 5, 4))
    assert [d.origin for d in decisions] == ["drafted", "relaxed", "drafted"]
    assert (decisions[1].token, decisions[1].choice, decisions[1].reason) == (5, 1, "because")
    assert decisions[1].deficit_nats == pytest.approx(3.0)
    assert relaxation.asked == [(3, [8, 8, 3], 1, 5)]


def test_a_relaxed_token_is_history_for_the_next():
    relaxation = Passing(5, 6)
    judge(relaxation, rows(3, 1, 4), guesses(5, 6))
    assert relaxation.asked[1] == (3, [8, 8, 5], 1, 6)


def test_the_first_miss_that_does_not_pass_is_corrected_and_ends_the_judgement():
    decisions = judge(Passing(), rows(3, 1, 4), guesses(9, 1))
    assert decisions == [Decision(3, 9, reason="because", key=True)]


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, top_k=2, seed=4), Sampling(1.0, top_p=0.5, seed=4)]
)
def test_what_top_k_and_top_p_leave_out_never_passes(sampling):
    logits = torch.tensor([[4.0, 3.9, 1.0, 0.0]])
    (decision,) = judge(Passing(3), logits, guesses(3), sampling)
    assert decision.origin == "corrected"


def test_a_lucky_draw_of_the_noise_earns_nothing():
    miss = Miss([], 1, Drafted(0), torch.tensor([2.0, 1.0]), Sampling(1.0))
    assert miss.deficit_nats == 0.0
    back = Miss([], 0, Drafted(1), torch.tensor([2.0, 1.0]), Sampling(1.0))
    assert back.deficit_nats == pytest.approx(1.0)


def test_probabilities_are_those_of_the_sampling():
    row = torch.tensor([2.0, 1.0, 0.0])
    assert Miss([], 0, Drafted(1), row, Sampling()).target.tolist() == row.log_softmax(-1).tolist()
    cooled = Miss([], 0, Drafted(1, row), row, Sampling(0.5, top_k=2))
    assert cooled.target[:2].tolist() == pytest.approx((row[:2] / 0.5).log_softmax(-1).tolist())
    assert cooled.target[2] == -math.inf
    assert cooled.draft.tolist() == cooled.target.tolist()
    assert Miss([], 0, Drafted(1), row, Sampling()).draft is None
