"""How likely a guess is kept, learned from how sure its source was."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.confidence import (
    COPIED,
    LEAST,
    MATCHED,
    MOST,
    PRIOR_UNSURE,
    Confidence,
    Guess,
)
from swarm.decoding.drafting.drafter import Source


def said(rank, confidence, lag=1):
    """What a draft model says."""
    return Guess(Source.MODEL, rank, confidence, lag=lag)


def copied(matched, share=1.0, lag=1):
    return Guess(Source.COPY, 0, share, matched, lag)


guesses = st.builds(
    Guess,
    st.sampled_from(Source),
    st.integers(0, 3),
    st.one_of(st.none(), st.floats(0, 1)),
    st.integers(0, 100),
    st.integers(0, 200),
)


def test_at_first_the_draft_is_believed():
    confidence = Confidence()
    assert confidence.chance(said(0, 0.37)) == pytest.approx(0.37)
    assert confidence.chance(said(0, None)) == PRIOR_UNSURE


def test_at_first_a_copy_is_believed_by_the_length_of_its_match():
    confidence = Confidence()
    chances = [confidence.chance(copied(matched)) for matched in (1, *MATCHED)]
    assert chances == list(COPIED) == sorted(COPIED)
    assert confidence.chance(copied(8, share=0.5)) == pytest.approx(chances[6] / 2)


@given(guesses, st.lists(st.tuples(guesses, st.booleans()), max_size=20))
def test_nothing_is_impossible_and_nothing_certain(guess, seen):
    confidence = Confidence()
    for each, accepted in seen:
        confidence.observe(each, accepted)
    assert LEAST <= confidence.chance(guess) <= MOST


def test_what_is_seen_corrects_a_boaster():
    confidence, rng = Confidence(), random.Random(1)
    for _ in range(400):
        first = rng.random() < 0.6
        confidence.observe(said(0, 0.97), first)
        confidence.observe(said(1, 0.02), not first)
    assert confidence.chance(said(0, 0.96)) == pytest.approx(0.6, abs=0.08)
    assert confidence.chance(said(1, 0.02)) == pytest.approx(0.4, abs=0.08)
    assert confidence.chance(said(0, 0.5)) == pytest.approx(0.5), "other bins are untouched"


def observe(confidence, times, guess, accepted):
    for _ in range(times):
        confidence.observe(guess, accepted)


def test_sources_ranks_and_matches_are_told_apart():
    confidence = Confidence()
    observe(confidence, 50, said(0, None), False)
    observe(confidence, 50, said(1, 0.4), True)
    observe(confidence, 50, copied(4), True)
    observe(confidence, 50, copied(20), False)
    assert confidence.chance(said(0, None)) < 0.2
    assert confidence.chance(said(1, 0.4)) > 0.8
    assert confidence.chance(said(2, 0.4)) == pytest.approx(0.4)
    assert confidence.chance(copied(4)) > 0.8
    assert confidence.chance(copied(20)) < 0.2


def test_a_rare_bin_learns_from_a_coarser_one_until_it_knows_better():
    """A lag that was never seen has the chance of all lags, then its own."""
    confidence = Confidence()
    observe(confidence, 100, said(0, 0.9, lag=1), True)
    far = said(0, 0.9, lag=20)
    assert confidence.chance(far) == pytest.approx(confidence.chance(said(0, 0.9, lag=9)))
    assert confidence.chance(far) > 0.95
    observe(confidence, 60, far, False)
    assert confidence.chance(far) < 0.3 < 0.8 < confidence.chance(said(0, 0.9, lag=1))


def test_it_follows_a_change():
    confidence = Confidence()
    observe(confidence, 1000, said(0, 0.9), True)
    observe(confidence, 1000, said(0, 0.9), False)
    assert confidence.chance(said(0, 0.9)) < 0.2
