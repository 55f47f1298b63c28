"""Batches run a bounded number of works side by side, keep their order, and lose nothing when one
fails."""

import asyncio

import pytest

from helpers.loopback import eventually
from swarm.client.batch import MAX_AT_ONCE, every_one, side_by_side
from swarm.errors import BatchFailed, ConfigError, RequestError


class Works:
    """Works that run until they are told to end, in any order."""

    def __init__(self, count: int) -> None:
        self.running: list[int] = []
        self.most = 0
        self.ended = [asyncio.Event() for _ in range(count)]
        self.cancelled: list[int] = []
        self.failing: dict[int, Exception] = {}

    def __iter__(self):
        return iter([lambda place=place: self.run(place) for place in range(len(self.ended))])

    async def run(self, place: int) -> str:
        self.running.append(place)
        self.most = max(self.most, len(self.running))
        try:
            await self.ended[place].wait()
        except asyncio.CancelledError:
            self.cancelled.append(place)
            raise
        finally:
            self.running.remove(place)
        if place in self.failing:
            raise self.failing[place]
        return f"result {place}"


async def started(works: Works, *places: int) -> None:
    await eventually(lambda: works.running == list(places))


async def test_results_keep_the_order_whichever_ends_first():
    works = Works(5)
    batch = asyncio.create_task(side_by_side([*works], at_once=2))
    await started(works, 0, 1)
    works.ended[1].set()
    await started(works, 0, 2)
    for event in works.ended:
        event.set()
    assert await batch == [f"result {place}" for place in range(5)]
    assert works.most == 2


async def test_an_empty_batch_has_no_results():
    assert await side_by_side([], at_once=3) == []


async def test_a_failure_ends_the_others_where_nothing_is_kept():
    works = Works(4)
    works.failing[1] = ConfigError("a", "broken")
    works.ended[1].set()
    with pytest.raises(ConfigError, match="broken"):
        await side_by_side([*works], at_once=3)
    assert sorted(works.cancelled) == [0, 2]
    assert not works.running


async def test_what_fails_does_not_lose_what_the_others_gave():
    works = Works(4)
    works.failing |= {1: ConfigError("a", "one is broken"), 3: ConfigError("b", "three is, too")}
    for event in works.ended:
        event.set()
    with pytest.raises(BatchFailed) as caught:
        await every_one([*works], at_once=2)
    failure = caught.value
    assert failure.results == ("result 0", None, "result 2", None)
    assert failure.errors == works.failing
    assert str(failure).startswith(
        "2 of 4 generations failed, that of prompt 1 because a: one is broken.; "
    )


async def test_a_fault_of_our_own_is_not_taken_for_a_failed_generation():
    works = Works(3)
    works.failing[0] = ZeroDivisionError()
    works.ended[0].set()
    with pytest.raises(ZeroDivisionError):
        await every_one([*works], at_once=3)
    assert not works.running


async def test_whoever_is_cancelled_leaves_nothing_running():
    works = Works(3)
    batch = asyncio.create_task(side_by_side([*works], at_once=2))
    await started(works, 0, 1)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert (works.running, sorted(works.cancelled)) == ([], [0, 1])


@pytest.mark.parametrize("at_once", [0, -1, MAX_AT_ONCE + 1])
async def test_how_many_at_a_time_is_bounded(at_once):
    with pytest.raises(
        RequestError, match=f"^at_once = {at_once} is not possible; give 1 to {MAX_AT_ONCE} "
    ):
        await side_by_side([*Works(1)], at_once)
