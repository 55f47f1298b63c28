"""Earlier texts are kept in bounded memory, and no text twice."""

from swarm.decoding.drafting.earlier import OVERLAP, SLICE, EarlierTexts
from swarm.decoding.drafting.suffixes import NO_MATCH


def known(earlier: EarlierTexts) -> int:
    return sum(map(len, earlier.parts))


def test_the_turns_of_a_conversation_add_what_is_new():
    earlier, text = EarlierTexts(), list(range(1000))
    earlier.add(text[:600])
    assert known(earlier) == 600
    earlier.add(text)
    assert known(earlier) == 600 + OVERLAP + 400
    earlier.add(text)
    earlier.add(text[:300])
    assert known(earlier) == 600 + OVERLAP + 400


def test_the_oldest_are_forgotten():
    earlier = EarlierTexts(most=100)
    for first in range(0, 10_000, 20):
        earlier.add(range(first, first + 20))
        assert known(earlier) <= 100
    assert known(earlier) > 50
    assert all(runs.walk(NO_MATCH, 5) == NO_MATCH for runs in earlier.parts)
    assert earlier.parts[0].walk(NO_MATCH, 9_990).length == 1


def test_of_a_long_text_the_end_is_kept():
    earlier = EarlierTexts(most=100)
    earlier.add(range(1000))
    assert known(earlier) == 50
    assert earlier.parts[0].walk(NO_MATCH, 999).length == 1


def test_a_long_text_is_added_in_slices():
    earlier = EarlierTexts()
    pauses = [(done, known(earlier)) for done in earlier.adding(range(3 * SLICE + 1))]
    assert pauses == [(done, done) for done in (SLICE, 2 * SLICE, 3 * SLICE)]
    assert known(earlier) == 3 * SLICE + 1


def test_what_is_new_is_found_at_any_length():
    for same in (*range(10), 100, 250):
        earlier = EarlierTexts()
        earlier.add(range(250))
        earlier.add([*range(same), *range(1000, 1010)])
        assert known(earlier) == 250 + min(same, OVERLAP) + 10
