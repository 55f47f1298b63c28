"""Lookup drafting: an index that follows the sequence finds the same as a search through it all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.drafting.lookup import LookupDrafter

TOKENS = st.integers(0, 3)  # few, so that runs occur again
TEXT = [1, 2, 3, 4, 5, 9, 1, 2, 3]


def tokens(drafted):
    assert all(guess.logits is None for guess in drafted)
    return [guess.token for guess in drafted]


def search(sequence, count, min_match, max_match):
    """What is to be drafted, found by comparing everywhere."""
    for length in range(max_match, min_match - 1, -1):
        for end in range(len(sequence) - 1, length - 1, -1):
            if sequence[end - length : end] == sequence[len(sequence) - length :]:
                copied = list(sequence)
                for i in range(count):
                    copied.append(copied[end + i])
                return copied[len(sequence) :]
    return []


@given(
    matches=st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted),
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.lists(TOKENS, max_size=12), st.integers(0, 6)), max_size=12
    ),
)
def test_after_any_rollbacks_it_finds_what_a_full_search_finds(matches, steps):
    drafter, sequence = LookupDrafter(*matches), []
    for taken_back, added, count in steps:
        sequence = sequence[: max(0, len(sequence) - taken_back)] + added
        assert tokens(drafter.draft(sequence, count)) == search(sequence, count, *matches)


def test_it_proposes_what_followed():
    assert tokens(LookupDrafter().draft(TEXT, 3)) == [4, 5, 9]


def test_the_longest_match_wins_and_of_those_the_latest():
    assert tokens(LookupDrafter(1, 3).draft([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1)) == [7]
    assert tokens(LookupDrafter(1, 2).draft([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1)) == [8]


def test_a_shorter_match_than_the_least_is_none():
    assert tokens(LookupDrafter(3).draft(TEXT, 1)) == [4]
    assert LookupDrafter(4).draft(TEXT, 1) == []


@pytest.mark.parametrize("sequence", [[], [1], [1, 1], [1, 2, 3, 4]])
def test_what_never_occurred_is_not_drafted(sequence):
    assert LookupDrafter().draft(sequence, 4) == []


def test_a_repetition_is_drafted_beyond_its_end():
    assert tokens(LookupDrafter().draft([7, 1, 2, 1, 2], 5)) == [1, 2, 1, 2, 1]


def test_it_stops_behind_a_stop_token():
    assert tokens(LookupDrafter(stop_ids=frozenset({5})).draft(TEXT, 4)) == [4, 5]


def test_each_new_token_costs_the_same_and_a_rollback_leaves_nothing_behind():
    drafter, added = LookupDrafter(), []
    original = drafter._remember
    drafter._remember = lambda: (added.append(1), original())
    drafter.draft(TEXT * 20, 4)
    added.clear()
    drafter.draft([*TEXT * 20, 6, 7], 4)
    assert len(added) == 2
    drafter.draft([1], 4)
    assert (drafter._latest, drafter._replaced) == ({}, [])


@pytest.mark.parametrize("matches", [(0, 2), (3, 2), (-1, -1)])
def test_matches_that_are_none_are_refused(matches):
    with pytest.raises(ValueError, match="give 1 <= min_match <= max_match"):
        LookupDrafter(*matches)
