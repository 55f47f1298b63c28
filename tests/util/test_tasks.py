import asyncio
import contextlib
import gc
import time

import pytest

from helpers.loopback import soon
from swarm.util import tasks
from swarm.util.tasks import LATE_S, all_over, end, within


async def test_what_takes_too_long_is_cancelled() -> None:
    ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, slow())
    assert ended.is_set()


async def test_what_is_gathered_takes_too_long_like_anything_else() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, asyncio.gather(asyncio.Event().wait(), return_exceptions=True))


async def test_result_and_error_of_the_work_are_passed_on() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    assert await within(5, asyncio.sleep(0, "result")) == "result"
    with pytest.raises(KeyError, match="mine"):
        await within(5, fail())


async def test_a_cancellation_that_comes_together_with_the_result_is_not_lost() -> None:
    result = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(5, result))
    await asyncio.sleep(0)  # it waits now
    result.set_result("too late")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_error_that_comes_together_with_a_cancellation_is_taken_note_of() -> None:
    """Else asyncio prints it, whenever the task is collected."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context)
    )
    result = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(5, result))
    await asyncio.sleep(0)  # the work has begun
    await asyncio.sleep(0)
    result.set_exception(KeyError("late"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del result, waiting
    gc.collect()
    assert complaints == []


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await soon(end(task))
    assert task.cancelled()
    assert swallowed == 2


async def test_an_error_is_raised_when_all_are_over() -> None:
    ended: list[str] = []

    async def work(name: str, turns: int, fails: bool) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.append(name)
        if fails:
            raise KeyError(name)

    with pytest.raises(KeyError, match="late"):
        await all_over(work("good", 9, False), work("late", 5, True), work("early", 1, True))
    assert ended == ["early", "late", "good"]
    await all_over()


async def test_a_time_that_passes_while_our_loop_stands_still_is_not_up() -> None:
    async def slowly() -> str:
        for _ in range(20):  # turns of the loop, as what comes over a link takes some
            await asyncio.sleep(0)
        return "done"

    waiting = asyncio.create_task(within(0.01, slowly()))
    await asyncio.sleep(0)
    time.sleep(2 * LATE_S)  # noqa: ASYNC251 (that is the point)
    assert await soon(waiting) == "done"


async def test_a_loop_that_stood_still_waits_no_longer_than_a_moment_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "CATCH_UP_S", 0.01)
    waiting = asyncio.create_task(within(0.01, asyncio.Event().wait()))
    await asyncio.sleep(0)
    time.sleep(2 * LATE_S)  # noqa: ASYNC251
    with pytest.raises(asyncio.TimeoutError):
        await soon(waiting)
