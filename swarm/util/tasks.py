"""Waiting with a limit, and ending tasks for certain.

Before Python 3.12 `asyncio.wait_for` swallows a cancellation that arrives together with the result.
The loop around it then runs on, and a task that waits for its end waits for ever. `within` and
`end` do not swallow it, and the linter bans `asyncio.wait_for`.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

# libraries that we call use `wait_for`: what has not ended by then is cancelled once more
CANCEL_AGAIN_S = 2.0
# A timer this late shows that our own event loop stood still: a collection of garbage, a library
# that computes, a machine that is overloaded. What has arrived meanwhile is read after that.
LATE_S = 0.5
CATCH_UP_S = 1.0  # for reading it

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of ``work``, which is cancelled when time is up or the caller is cancelled.

    If time is up while our own event loop stands still, that says nothing of the others: ``work``
    gets another `CATCH_UP_S`.

    Raises:
        asyncio.TimeoutError: when ``seconds`` have passed.
    """
    due = asyncio.get_running_loop().time() + seconds
    # a task of ours: what `gather` returns does not show a cancellation
    task = asyncio.create_task(_result_of(work))
    done: set[asyncio.Task[T]] = set()
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done and stood_still(due):
            done, _ = await asyncio.wait({task}, timeout=CATCH_UP_S)
    finally:
        if not done:
            await end(task)
    if not done and task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


def stood_still(due: float) -> bool:
    """Tell whether our event loop stood still when a timer was due, by the loop's clock."""
    return asyncio.get_running_loop().time() - due > LATE_S


async def all_over(*work: Awaitable[object]) -> None:
    """Run several awaitables side by side until all are over, then raise the first error, if any.

    `asyncio.gather` raises while the others still run, and leaves them without an owner.
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
    """End all other tasks of this event loop, those of libraries too, as `asyncio.run` does."""
    ours = asyncio.current_task()
    await end(*(task for task in asyncio.all_tasks() if task is not ours))


async def _result_of(work: Awaitable[T]) -> T:
    return await work
