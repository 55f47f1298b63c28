"""What a drafter does by default, and which sources cost nothing."""

from collections.abc import Sequence

from swarm.decoding.drafting.drafter import Drafted, Drafter, Source


class Next(Drafter):
    """Guesses that tokens count on."""

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        return [Drafted(sequence[-1] + 1 + each) for each in range(count)]


def test_paths_are_drafted_one_after_the_other() -> None:
    lines = Next().draft_each((1, 2), [(), (7,), (7, 9)], 2)
    assert [[each.token for each in line] for line in lines] == [[3, 4], [8, 9], [10, 11]]


def test_it_reads_nothing_of_the_target() -> None:
    assert (Next().prompt_features, Next().taps) == (None, ())
    Next().answered((1, 2), [])


def test_what_is_copied_or_forced_is_free() -> None:
    assert [each for each in Source if each.is_free] == [Source.FORCED, Source.COPY]
