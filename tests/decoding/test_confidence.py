"""How likely a draft is kept, learned from how sure it was."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.confidence import LEAST, MOST, PRIOR_UNSURE, Confidence


def test_at_first_the_draft_is_believed():
    confidence = Confidence()
    assert confidence.chance(0, 0.37) == pytest.approx(0.37)
    assert confidence.chance(0, None) == PRIOR_UNSURE


@given(st.integers(0, 3), st.one_of(st.none(), st.floats(0, 1)))
def test_nothing_is_impossible_and_nothing_certain(rank, sure):
    assert LEAST <= Confidence().chance(rank, sure) <= MOST


def test_what_is_seen_corrects_a_boaster():
    confidence, rng = Confidence(), random.Random(1)
    for _ in range(400):
        confidence.observe([0.97, 0.02], 0 if rng.random() < 0.6 else 1)
    assert confidence.chance(0, 0.96) == pytest.approx(0.6, abs=0.08)
    assert confidence.chance(1, 0.02) == pytest.approx(0.4, abs=0.08)
    assert confidence.chance(0, 0.5) == pytest.approx(0.5), "other measures are untouched"


def test_ranks_are_told_apart_and_so_are_guesses_without_a_measure():
    confidence = Confidence()
    for _ in range(50):
        confidence.observe([None, 0.4, 0.4], 1)
    assert confidence.chance(0, None) < 0.2
    assert confidence.chance(1, 0.4) > 0.8
    assert confidence.chance(2, 0.4) < 0.2


def test_it_follows_a_change():
    confidence = Confidence()
    for kept in [0] * 1000 + [None] * 1000:
        confidence.observe([0.9], kept)
    assert confidence.chance(0, 0.9) < 0.2
