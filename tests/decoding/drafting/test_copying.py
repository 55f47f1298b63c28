"""What followed the same tokens before is drafted, wherever it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.drafting.copying import CopyDrafter
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.earlier import EarlierTexts

TOKENS = st.integers(0, 3)  # few, so that runs occur again
TEXT = [1, 2, 3, 4, 5, 9, 1, 2, 3]


def tokens(drafted):
    assert all(guess.logits is None and guess.source is Source.COPY for guess in drafted)
    return [guess.token for guess in drafted]


def search(text, path):
    """The longest match of the end of a text and a path, and what followed it, found by comparing
    everywhere. Nothing is copied out of the path."""
    whole = [*text, *path]
    for length in range(len(whole), 0, -1):
        run = whole[-length:]
        followed = [
            text[end] for end in range(length, len(text)) if text[end - length : end] == run
        ]
        if followed:
            most = max(map(followed.count, followed))
            last = next(each for each in reversed(followed) if followed.count(each) == most)
            return length, last, most / len(followed)
    return None


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(TOKENS, max_size=12), st.lists(TOKENS, max_size=3)),
        max_size=8,
    )
)
def test_it_finds_what_a_search_through_the_text_finds(steps):
    drafter, text = CopyDrafter(), []
    for taken_back, added, path in steps:
        text = text[: max(0, len(text) - taken_back)] + added
        found = search(text, path)
        [drafted] = drafter.draft_each(text, [path], 1)
        said = [(each.matched, each.token, each.confidence) for each in drafted]
        assert said == ([] if found is None else [found])


def test_it_drafts_what_followed_with_ever_longer_matches():
    drafted = CopyDrafter().draft(TEXT, 4)
    assert tokens(drafted) == [4, 5, 9, 1]
    assert [guess.matched for guess in drafted] == [3, 4, 5, 6]


def test_paths_are_continued_as_if_they_were_text_and_not_copied_from():
    lines = CopyDrafter().draft_each(TEXT, [(), (4,), (7, 2, 3), (8, 8)], 2)
    assert list(map(tokens, lines)) == [[4, 5], [5, 9], [4, 5], []]


def test_the_most_frequent_comes_first_and_the_others_with_their_shares():
    text = [1, 2, 7, 1, 2, 8, 1, 2, 7, 1, 2]
    [guess] = CopyDrafter().draft(text, 1)
    assert (guess.token, guess.matched) == (8, 5), "after the longer match"
    [[guess]] = CopyDrafter().draft_each(text, [(0, 1, 2)], 1)
    assert (guess.token, guess.confidence) == (7, pytest.approx(2 / 3))
    assert guess.others == ((8, pytest.approx(1 / 3)),)


@pytest.mark.parametrize("sequence", [[], [1], [1, 2], [1, 2, 3, 4]])
def test_what_never_occurred_is_not_drafted(sequence):
    assert CopyDrafter().draft(sequence, 4) == []


def test_a_repetition_is_drafted_beyond_its_end():
    assert tokens(CopyDrafter().draft([7, 1, 2, 1, 2, 1, 2], 5)) == [1, 2, 1, 2, 1]


def test_it_stops_behind_a_stop_token():
    assert tokens(CopyDrafter(frozenset({5})).draft(TEXT, 4)) == [4, 5]


def test_nothing_asked_nothing_drafted():
    assert CopyDrafter().draft(TEXT, 0) == []
    assert CopyDrafter().draft_each(TEXT, [], 3) == []


# Earlier texts.


def test_earlier_texts_are_copied_where_they_match_more():
    earlier = EarlierTexts()
    earlier.add([9, 1, 2, 3, 6, 5])
    drafter = CopyDrafter(earlier=earlier)
    assert tokens(drafter.draft([8, 2, 3, 7, 9, 1, 2, 3], 2)) == [6, 5]
    own = [2, 3, 7, 2, 3]
    assert tokens(drafter.draft(own, 1)) == [7], "its own, if as much matches"


def test_a_text_that_was_added_meanwhile_is_copied_too():
    earlier = EarlierTexts(most=40)
    drafter, text = CopyDrafter(earlier=earlier), [1, 2, 3]
    assert drafter.draft(text, 1) == []
    earlier.add([1, 2, 3, 4, 5])
    assert tokens(drafter.draft(text, 1)) == [4]
    assert tokens(drafter.draft([*text, 4], 1)) == [5]
    for other in range(10, 90, 10):
        earlier.add(range(other, other + 10))
    assert drafter.draft([*text, 4], 1) == [], "it was forgotten"
    earlier.add([3, 4, 6])
    assert tokens(drafter.draft([*text, 4], 1)) == [6]
