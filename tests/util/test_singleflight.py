"""Whoever asks at the same time is answered by the same work."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.loopback import soon
from swarm.util.singleflight import SingleFlight


class Work:
    """Takes some turns of the event loop, and counts how often it is under way at once."""

    def __init__(self) -> None:
        self.begun = self.ended = self.at_once = self.most = 0

    async def do(self, turns: int) -> int:
        self.begun += 1
        number = self.begun
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        self.ended += 1
        return number


# when, how long the work takes if it is begun then, and when it is cancelled
Asking = tuple[int, int, int | None]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.none() | st.integers(0, 12)), max_size=10
    )
)
def test_one_is_under_way_at_a_time_and_answers_all_that_were_not_cancelled(
    asking: list[Asking],
) -> None:
    async def live() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        work = Work()

        async def ask(start: int, turns: int) -> int:
            for _ in range(start):
                await asyncio.sleep(0)
            return await flights.do("key", lambda: work.do(turns))

        tasks = [asyncio.create_task(ask(start, turns)) for start, turns, _ in asking]
        for now in range(13):
            for task, (_, _, cancelled) in zip(tasks, asking, strict=True):
                if cancelled == now:
                    task.cancel()
            await asyncio.sleep(0)
        results = await soon(asyncio.gather(*tasks, return_exceptions=True))
        for result, (_, _, cancelled) in zip(results, asking, strict=True):
            assert isinstance(result, int) or (
                cancelled is not None and isinstance(result, asyncio.CancelledError)
            )
        assert work.most <= 1
        assert work.at_once == 0, "nobody waits, and nothing goes on"
        assert flights._flights == {}

    asyncio.run(live())


async def test_an_error_is_told_to_all_and_the_next_one_tries_again() -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise KeyError("no")

    async def succeed() -> int:
        return 5

    results = await asyncio.gather(
        *(flights.do("key", fail) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [KeyError] * 3
    assert await flights.do("key", succeed) == 5


async def test_each_key_has_its_own_work() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    go_on = asyncio.Event()

    async def say(what: str) -> str:
        await go_on.wait()
        return what

    asked = [asyncio.create_task(flights.do(key, lambda key=key: say(key))) for key in "ab"]
    await asyncio.sleep(0)
    go_on.set()
    assert await soon(asyncio.gather(*asked)) == ["a", "b"]


async def test_the_last_one_that_waits_ends_it() -> None:
    flights: SingleFlight[str, None] = SingleFlight()
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = [asyncio.create_task(flights.do("key", forever)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert not ended.is_set()
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    assert ended.is_set()
