"""How many generations run at once, and who is next."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from swarm.gateway.errors import BadRequest, Overloaded

PLACES = 32
WAITING = 64
PATIENCE_S = 60.0  # that a request waits for places
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 60.0
MEMORY = 0.2  # weight of the last generation in how long one takes


class Admission:
    """A number of places, and a bounded line of those who wait for some: first come, first served.

    Whoever needs many places at once is not overtaken by those who need few.

    Args:
        places: generations that run at once.
        waiting: generations that may wait beyond these.
        clock: tells seconds.
    """

    def __init__(
        self,
        places: int = PLACES,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places, self._most_waiting, self._patience_s, self._clock = places, waiting, patience_s, clock
        self.running = 0
        self._line: deque[tuple[asyncio.Future[None], int]] = deque()
        self._held_s = LEAST_RETRY_S  # that a generation lately took

    @property
    def waiting(self) -> int:
        return sum(count for _, count in self._line)

    @asynccontextmanager
    async def admit(self, count: int = 1) -> AsyncIterator[None]:
        """Hold so many places, as soon as it is our turn.

        Raises:
            BadRequest: if there are never so many.
            Overloaded: if the line is full, or does not move.
        """
        if count > self.places:
            raise BadRequest(f"{count} texts at once are asked for, and at most {self.places} are written", "n")
        await self._take(count)
        since = self._clock()
        try:
            yield
        finally:
            self._held_s += MEMORY * (self._clock() - since - self._held_s)
            self._give_back(count)

    async def _take(self, count: int) -> None:
        if not self._line and self.running + count <= self.places:
            self.running += count
            return
        if self.waiting + count > self._most_waiting:
            raise self._overloaded()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((turn, count))
        try:
            await asyncio.wait({turn}, timeout=self._patience_s)
        except asyncio.CancelledError:
            if turn.done():
                self._give_back(count)
            raise
        finally:
            if not turn.done():
                self._line.remove((turn, count))
                self._call()
        if not turn.done():
            raise self._overloaded()

    def _give_back(self, count: int) -> None:
        self.running -= count
        self._call()

    def _call(self) -> None:
        """Call everyone in from the head of the line for whom there are places."""
        while self._line and self.running + self._line[0][1] <= self.places:
            turn, count = self._line.popleft()
            self.running += count
            turn.set_result(None)

    def _overloaded(self) -> Overloaded:
        until_free = self._held_s * (1 + self.waiting) / self.places
        return Overloaded(self.running, self.waiting, min(MOST_RETRY_S, max(LEAST_RETRY_S, until_free)))
