"""Run many generations side by side, a bounded number at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from swarm.errors import BatchFailed, RequestError, SwarmError
from swarm.outputs import Generation
from swarm.util.tasks import end

DEFAULT_AT_ONCE = 8  # generations: peers compute them in one forward pass
MAX_AT_ONCE = 256  # each has a session on every peer of its chain

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]


async def side_by_side(works: Sequence[Work[T]], at_once: int) -> list[T]:
    """Return the results of all works in order; ``at_once`` run at a time.

    If one fails, the others are cancelled.

    Raises:
        RequestError: if ``at_once`` is out of range.
    """
    if not 1 <= at_once <= MAX_AT_ONCE:
        raise RequestError("at_once", at_once, f"1 to {MAX_AT_ONCE} generations at a time")
    done: dict[int, T] = {}
    waiting = iter(enumerate(works))

    async def work_off() -> None:
        for place, work in waiting:
            done[place] = await work()

    workers = [asyncio.create_task(work_off()) for _ in range(min(at_once, len(works)))]
    try:
        await asyncio.gather(*workers)
    finally:
        await end(*workers)
    return [done[place] for place in range(len(works))]


async def every_one(works: Sequence[Work[Generation]], at_once: int) -> list[Generation]:
    """Run works as `side_by_side` does, except that an error does not end the others.

    Raises:
        BatchFailed: when all are over, if any failed.
    """
    errors: dict[int, SwarmError] = {}

    def kept(place: int, work: Work[Generation]) -> Work[Generation | None]:
        async def run() -> Generation | None:
            try:
                return await work()
            except SwarmError as error:
                errors[place] = error
                return None

        return run

    results = await side_by_side([kept(place, work) for place, work in enumerate(works)], at_once)
    if errors:
        raise BatchFailed(tuple(results), errors)
    return [result for result in results if result is not None]
