"""Strict verification keeps exactly what the target itself would have said."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Decision
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling

GREEDY = Strict(Sampling())


def rows(*choices, vocabulary=10):
    """Logits whose greedy choices are ``choices``."""
    return torch.nn.functional.one_hot(torch.tensor(choices), vocabulary).float()


def guesses(*tokens):
    return [Drafted(token) for token in tokens]


def test_a_decision_knows_who_chose():
    assert (Decision(5, 5).kept, Decision(5, 5).origin) == (True, "drafted")
    assert (Decision(5, 4).kept, Decision(5, 4).origin) == (False, "corrected")
    assert (Decision(5, 5, choice=4).kept, Decision(5, 5, choice=4).origin) == (True, "relaxed")
    assert (Decision(5, None).kept, Decision(5, None).origin) == (False, "target")


def test_all_kept_and_one_more_from_the_target():
    assert GREEDY.judge(rows(3, 1, 4), [9] * 7, guesses(3, 1)) == [
        Decision(3, 3),
        Decision(1, 1),
        Decision(4, None),
    ]


def test_the_first_miss_is_corrected_and_ends_the_judgement():
    assert GREEDY.judge(rows(3, 1, 4, 1), [9] * 7, guesses(3, 2, 4)) == [
        Decision(3, 3),
        Decision(1, 2),
    ]


def test_without_a_draft_the_target_chooses_one_token():
    assert GREEDY.judge(rows(6, 2), [9] * 7, guesses()) == [Decision(6, None)]


def test_drafts_up_to_the_last_row_leave_no_free_choice():
    assert GREEDY.judge(rows(3, 1), [9] * 7, guesses(3, 1)) == [Decision(3, 3), Decision(1, 1)]


@settings(deadline=None)
@given(st.data())
def test_sampled_judgement_is_the_choice_position_by_position(data):
    sampling = Sampling(
        1.0, top_k=data.draw(st.sampled_from([0, 2])), seed=data.draw(st.integers(0, 1000))
    )
    position, count = data.draw(st.integers(0, 100)), data.draw(st.integers(1, 6))
    logits = torch.randn(
        count, 4, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    )
    drafted = data.draw(st.lists(st.integers(0, 3), max_size=count))
    expected = []
    for i in range(count):
        choice = sampling.choose(logits[i : i + 1], position + i)[0]
        expected.append(Decision(choice, drafted[i] if i < len(drafted) else None))
        if expected[-1].token != expected[-1].drafted:
            break
    assert Strict(sampling).judge(logits, [9] * position, guesses(*drafted)) == expected
