"""Messages that are written in order, even if the tasks that wait for it are cancelled."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from swarm.util.tasks import end

T = TypeVar("T")


class Outbox(Generic[T]):
    """Writes items by a task of its own, so that cancelling the wait for one tears no write apart.

    Its users bound it: each waits for its items to be written before it puts more. Call `drop` at
    the end.

    Args:
        write: writes one item. If it raises, nothing more is written, and all who wait get that
            error, until `drop`.
    """

    def __init__(self, write: Callable[[T], Awaitable[None]]) -> None:
        self._write = write
        self._items: deque[T] = deque()
        self._writer: asyncio.Task[None] | None = None

    def put(self, item: T) -> None:
        """Have it written behind all that was put before."""
        self._items.append(item)
        if self._writer is None or (self._writer.done() and self._failure(self._writer) is None):
            self._writer = asyncio.create_task(self._run())

    async def written(self) -> None:
        """Wait until all that was put is written. Raises what writing raised. May be cancelled."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer})
        if self._writer is not None and (failure := self._failure(self._writer)):
            raise failure

    async def drop(self) -> None:
        """Write nothing of what still waits, and forget a failure."""
        self._items.clear()
        if self._writer is not None:
            await end(self._writer)
            self._writer = None

    async def _run(self) -> None:
        while self._items:
            await self._write(self._items.popleft())

    @staticmethod
    def _failure(writer: "asyncio.Task[None]") -> BaseException | None:
        return None if writer.cancelled() else writer.exception()
