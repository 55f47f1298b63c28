"""Several streams as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from swarm.util.tasks import end

T = TypeVar("T")


class _End:
    """A stream is over, perhaps because it failed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What all streams yield, in turn.

    At most one item waits, so that all go as fast as the reader.

    The first to fail ends the others, and its error is raised. Closing this closes all of them.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[T | _End] = asyncio.Queue(1)
    pumps = [asyncio.create_task(_pump(stream, queue)) for stream in streams]
    left = len(pumps)
    try:
        while left:
            told = await queue.get()
            if not isinstance(told, _End):
                yield told
            elif told.error is not None:
                raise told.error
            else:
                left -= 1
    finally:
        await end(*pumps)


async def _pump(stream: AsyncGenerator[T, None], queue: "asyncio.Queue[T | _End]") -> None:
    over = _End()
    try:
        async with aclosing(stream):
            async for item in stream:
                await queue.put(item)
    except Exception as error:  # whatever it is, it is raised where the items are read
        over = _End(error)
    await queue.put(over)
