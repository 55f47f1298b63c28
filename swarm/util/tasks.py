"""Waiting with a limit, and ending tasks for certain.

`asyncio.wait_for` swallows, before Python 3.12, a cancellation that arrives together with the
result: the loop around it then runs on, and whoever waits for its end waits for ever. These two do
not, and the linter bans that.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

# libraries that we call use `wait_for`: what has not ended by then is cancelled once more
CANCEL_AGAIN_S = 2.0

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when time is up or when we are.

    Raises:
        asyncio.TimeoutError: when ``seconds`` have passed.
    """
    # a task of ours: what `gather` returns does not show a cancellation
    task = asyncio.create_task(_result_of(work))
    done: set[asyncio.Task[T]] = set()
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not done:
            await end(task)
    if not done and task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def all_over(*work: Awaitable[object]) -> None:
    """Let several things go on side by side and wait until all are over; then raise the first
    error, if there was one.

    `asyncio.gather` raises while the others still run, and leaves them to nobody.
    """
    for error in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until all are over. What they return or raise is dropped."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # taken note of, so that asyncio does not print it


async def end_all() -> None:
    """End all other tasks of this event loop, as `asyncio.run` does before it closes one: those of
    libraries, too."""
    ours = asyncio.current_task()
    await end(*(task for task in asyncio.all_tasks() if task is not ours))


async def _result_of(work: Awaitable[T]) -> T:
    return await work
