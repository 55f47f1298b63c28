"""Work that is shared by all callers that ask for it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from swarm.util.tasks import end

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Does the work of a key once at a time: callers that ask meanwhile share its result or error.

    The work goes on while a caller waits for it, and ends with the last caller that is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[K, tuple[asyncio.Task[T], int]] = {}  # and how many wait

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the work under way for this key, or else of ``work``.

        Raises what it raises.
        """
        task, waiting = self._flights.get(key) or (asyncio.create_task(_result_of(work)), 0)
        self._flights[key] = task, waiting + 1
        try:
            await asyncio.wait({task})
        finally:
            await self._left(key, task)
        return task.result()

    async def _left(self, key: K, task: "asyncio.Task[T]") -> None:
        """Count one caller less: the work is over, or the caller was cancelled."""
        flight, waiting = self._flights.get(key, (None, 0))
        if flight is not task:  # another has begun since this one ended
            return
        if task.done() or waiting == 1:
            del self._flights[key]
            await end(task)
        else:
            self._flights[key] = task, waiting - 1


async def _result_of(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
