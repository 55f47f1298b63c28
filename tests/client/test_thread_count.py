"""The number of threads follows what works take, whether the computer is busy or idle."""

from itertools import pairwise

import pytest

from swarm.client.thread_count import HOPELESS, MAX_RETRY_WORKS, RETRY_WORKS, TRIES, ThreadCount


def work(count: ThreadCount, took_s: dict[int, float], works: int) -> list[int]:
    """Return how many threads some works take, one after the other."""
    taken = []
    for _ in range(works):
        taken.append(count.next())
        count.note(taken[-1], took_s[taken[-1]])
    return taken


@pytest.mark.parametrize(
    ("took_s", "best"),
    [({4: 1.0, 2: 1.4, 1: 2.0}, 4), ({4: 9.0, 2: 4.0, 1: 2.0}, 1), ({4: 3.0, 2: 2.0, 1: 3.0}, 2)],
)
def test_the_fastest_number_is_taken(took_s: dict[int, float], best: int) -> None:
    taken = work(ThreadCount([4, 2, 1]), took_s, 3 * TRIES + 10)
    assert taken[0] == 4
    assert taken[-10:] == [best] * 10


def test_one_slow_work_says_nothing_against_a_number() -> None:
    count = ThreadCount([2, 1])
    work(count, {2: 1.0, 1: 1.2}, 2 * TRIES)
    count.note(2, 100.0)
    assert count.next() == 2


def test_a_number_that_became_slow_is_left_at_once() -> None:
    count = ThreadCount([2, 1])
    work(count, {2: 1.0, 1: 1.2}, 2 * TRIES)
    assert work(count, {2: 10.0, 1: 1.2}, TRIES + 1)[-1] == 1


def test_the_others_are_tried_again_less_and_less_often() -> None:
    count = ThreadCount([2, 1])
    slow = {2: 1.0, 1: 2 * HOPELESS}
    taken = work(count, slow, 4 * MAX_RETRY_WORKS)
    tried = [place for place, threads in enumerate(taken) if threads == 1]
    pauses = [after - before - 1 for before, after in pairwise(tried)]
    # each time only one work takes long
    assert pauses[:3] == [RETRY_WORKS, 2 * RETRY_WORKS, 4 * RETRY_WORKS]
    assert pauses[-1] == MAX_RETRY_WORKS
    faster = work(count, {2: 1.0, 1: 0.5}, 2 * MAX_RETRY_WORKS)
    assert faster[-1] == 1


def test_works_with_another_number_tell_nothing() -> None:
    count = ThreadCount([4, 1])
    count.note(2, 0.001)
    assert work(count, {4: 1.0, 1: 2.0}, 20)[-1] == 4


def test_where_there_is_one_number_nothing_is_tried() -> None:
    assert set(work(ThreadCount([1]), {1: 1.0}, 4 * RETRY_WORKS)) == {1}
