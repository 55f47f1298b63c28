"""A draft's systematic errors are corrected by what the target chose, and nothing else changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.drafting import correction as module
from swarm.decoding.drafting.correction import (
    MAX_BEHIND,
    MOST,
    CorrectedShaping,
    Correction,
)
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.shaping import Shaping

SIZE = 50
tokens = st.integers(0, SIZE - 1)


def guess(token, share=0.6, *others):
    return Drafted(token, torch.zeros(SIZE), share, others)


def corrected(correction, previous):
    """The biases of all tokens behind one token."""
    return correction.apply(torch.zeros(1, SIZE), [previous])[0]


def test_what_the_target_chooses_instead_becomes_likelier_also_behind_other_tokens():
    correction = Correction(SIZE)
    for _ in range(20):
        correction.learn(7, guess(3, 0.6, (4, 0.3)), 4)
    here, elsewhere = corrected(correction, 7), corrected(correction, 8)
    assert here[4] > elsewhere[4] > 0 > elsewhere[3] > here[3]
    assert not here[[0, 7, 8]].any()


def test_a_draft_that_confuses_two_tokens_is_soon_right():
    correction = Correction(SIZE)
    logits = torch.zeros(1, SIZE)
    logits[0, 3], logits[0, 4] = 5.5, 5.0
    firsts = []
    for _ in range(12):
        shares = correction.apply(logits, [7])[0].softmax(dim=-1)
        first, second = shares.topk(2).indices.tolist()
        firsts.append(first)
        correction.learn(7, guess(first, float(shares[first]), (second, float(shares[second]))), 4)
    assert firsts[0] == 3
    assert set(firsts[2:]) == {4}


def test_a_token_that_was_not_among_the_choices_is_learned_too():
    correction = Correction(SIZE)
    correction.learn(7, guess(3, 0.6, (4, 0.3)), 9)
    assert corrected(correction, 7)[9] > 0


def test_a_draft_that_is_right_and_sure_of_it_is_left_alone():
    correction = Correction(SIZE)
    correction.learn(7, guess(3, 1.0), 3)
    assert not corrected(correction, 7).any()


def test_a_guess_without_a_confidence_teaches_nothing():
    correction = Correction(SIZE)
    correction.learn(7, Drafted(3), 4)
    assert not corrected(correction, 7).any()


def test_each_row_is_corrected_by_the_token_before_it():
    correction = Correction(SIZE)
    correction.learn(7, guess(3), 4)
    rows = correction.apply(torch.zeros(3, SIZE), [8, 7, 8])
    assert torch.equal(rows[0], rows[2])
    assert rows[1, 4] > rows[0, 4]


def test_the_logits_are_not_changed_in_place():
    correction = Correction(SIZE)
    correction.learn(7, guess(3), 4)
    logits = torch.zeros(1, SIZE)
    correction.apply(logits, [7])
    assert not logits.any()


@given(st.lists(st.tuples(tokens, tokens, st.floats(0, 1), tokens, tokens), max_size=60))
def test_biases_stay_within_bounds_whatever_is_told(places):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PREVIOUS", 4)
        correction = Correction(SIZE)
        for previous, drafted, share, other, chosen in places:
            correction.learn(previous, guess(drafted, share, (other, 1 - share)), chosen)
    rows = correction.apply(torch.zeros(SIZE, SIZE), range(SIZE))
    assert rows.isfinite().all()
    assert rows.abs().max() <= 2 * MOST
    unigrams = rows.median(dim=0).values  # most tokens are followed by none that was learned
    differing = [row for row in rows if not torch.equal(row, unigrams)]
    assert len(differing) <= 4


def test_few_tokens_have_biases_behind_one_token_those_learned_last():
    correction = Correction(200)
    for token in range(100):
        correction.learn(7, Drafted(token, torch.zeros(200), 0.5), token)
    behind = correction.apply(torch.zeros(2, 200), [7, 8])
    pairs = (behind[0] - behind[1]).nonzero().flatten().tolist()
    assert pairs == list(range(100 - MAX_BEHIND, 100))


def test_what_was_asked_for_is_done_to_the_corrected_logits():
    correction = Correction(SIZE)
    for _ in range(5):
        correction.learn(7, guess(3), 4)
    asked = Shaping(2.0, ((5, 1.5),))
    shaping = CorrectedShaping(asked=asked, correction=correction)
    logits = torch.randn(2, SIZE)
    paths = [(), (1, 7)]
    expected = asked.apply_each(correction.apply(logits, [6, 7]), [4, 6], paths)
    assert torch.equal(shaping.apply_each(logits, [4, 6], paths), expected)
    single = asked.apply(correction.apply(logits[:1], [6]), [4, 6])
    assert torch.equal(shaping.apply(logits[:1], [4, 6]), single)
