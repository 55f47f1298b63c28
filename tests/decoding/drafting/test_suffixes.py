"""A suffix automaton finds what a search through all texts finds."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.drafting.suffixes import MOST_COUNTED, NO_MATCH, SuffixAutomaton

TOKENS = st.integers(0, 2)  # few, so that runs occur again
TEXTS = st.lists(st.lists(TOKENS, max_size=14), min_size=1, max_size=3)


def automaton(*texts):
    runs = SuffixAutomaton()
    for text in texts:
        runs.break_off()
        for token in text:
            runs.append(token)
    return runs


def ends(texts, run):
    """The places where a run ends: text, and position behind it."""
    return [
        (text, end)
        for text in texts
        for end in range(len(run), len(text) + 1)
        if text[end - len(run) : end] == run
    ]


def longest(texts, tokens, times=1):
    """How long the longest suffix of some tokens is that occurs so many times."""
    lengths = range(len(tokens), 0, -1)
    return next((n for n in lengths if len(ends(texts, tokens[-n:])) >= times), 0)


@given(TEXTS)
def test_the_end_is_the_longest_run_that_occurs_elsewhere_too(texts):
    assert automaton(*texts).end.length == longest(texts, texts[-1], times=2)


@given(TEXTS, st.lists(st.integers(0, 3), max_size=10))
def test_any_tokens_are_followed_as_far_back_as_they_occur(texts, tokens):
    runs, match = automaton(*texts), NO_MATCH
    for read, token in enumerate(tokens, 1):
        match = runs.walk(match, token)
        assert match.length == longest(texts, tokens[:read])


@given(TEXTS, st.lists(TOKENS, min_size=1, max_size=6))
def test_what_followed_a_run_and_how_often(texts, tokens):
    runs, match = automaton(*texts), NO_MATCH
    for token in tokens:
        match = runs.walk(match, token)
    if not match.length:
        return
    found = ends(texts, tokens[-match.length :])
    followed = Counter(text[end] for text, end in found if end < len(text))
    assert dict(runs.following(match)) == followed
    counts = [times for _, times in runs.following(match)]
    assert counts == sorted(counts, reverse=True)
    continued = runs.continued(match)
    if followed:
        assert continued == match
    else:
        assert continued.length < match.length
        assert runs.following(continued) or continued == NO_MATCH


def test_of_equally_frequent_ones_the_latest_comes_first():
    runs = automaton([1, 5, 1, 6, 1, 7, 1])
    assert runs.following(runs.end) == [(7, 1), (6, 1), (5, 1)]


def test_no_run_goes_across_a_gap():
    runs = automaton([1, 2], [3, 1])
    assert runs.walk(runs.walk(NO_MATCH, 2), 3).length == 1
    assert runs.following(runs.end) == [(2, 1)]


@given(st.lists(st.integers(0, 3), max_size=60))
def test_it_takes_less_than_two_states_a_token(text):
    runs = automaton(text)
    assert len(runs) == len(text)
    assert runs.states <= max(2, 2 * len(text))


def test_a_text_of_one_token_is_added_in_even_steps():
    """Each of its tokens ends as many runs as there are tokens before it."""
    runs = automaton([5] * 2000)
    assert runs.end.length == 1999
    assert sum(runs._count) <= 2000 * MOST_COUNTED
    assert runs.following(runs.end) == [(5, 1)]
