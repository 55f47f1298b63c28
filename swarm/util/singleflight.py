"""Work that all who want it at the same time share."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from swarm.util.tasks import end

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Does the work of one key once at a time: whoever asks meanwhile gets the same result, or the
    same error.

    It goes on as long as anybody waits for it. The last one that is cancelled ends it.
    """

    def __init__(self) -> None:
        self._flights: dict[K, tuple[asyncio.Task[T], int]] = {}  # and how many wait

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the ``work`` that is under way for this key, or of this one.

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
        """One waits no more: for what is over, or because it was cancelled."""
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
