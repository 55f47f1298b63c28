"""Merge several streams into one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from swarm.util.tasks import end

T = TypeVar("T")


class _End:
    """The end of a stream, and the error that ended it, if any."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Yield the items of all streams as they come.

    At most one item is buffered, so that no stream runs ahead of the reader. The first stream to
    fail ends the others, and its error is raised. Closing this generator closes all streams.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[T | _End] = asyncio.Queue(1)
    pumps = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    running = len(pumps)
    try:
        while running:
            queued = await queue.get()
            if not isinstance(queued, _End):
                yield queued
            elif queued.error is not None:
                raise queued.error
            else:
                running -= 1
    finally:
        await end(*pumps)


async def _pump(stream: AsyncGenerator[T, None], queue: "asyncio.Queue[T | _End]") -> None:
    end_of_stream = _End()
    try:
        async with aclosing(stream):
            async for item in stream:
                await queue.put(item)
    except Exception as error:  # of any kind: the reader of the items gets it
        end_of_stream = _End(error)
    await queue.put(end_of_stream)
