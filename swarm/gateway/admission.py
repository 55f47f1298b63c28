"""Admission control: how many texts may be requested and generated at once, and in which order.

A request is *admitted* when its body has been read, until it is answered. It holds *places* while
its texts are generated. In between, its prompt is tokenized and the model's peers are looked up.
Both may take long, and neither keeps other requests from their places.

If several models are served, each has a guaranteed share; the rest is first come, first served. A
model whose peers are gone, and whose requests all wait, thus leaves places to the other models.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from swarm.gateway.errors import BadRequest, Overloaded
from swarm.util.averages import ewma

PLACES = 32
WAITING = 64
PATIENCE_S = 60.0  # that a request waits for places
LEAST_RETRY_S = 1.0
MOST_RETRY_S = 60.0
FADE = 0.8  # weight of earlier generations in the mean time that one takes


class Shares:
    """A number of units that models share.

    Each model is guaranteed some, which no other model can take.

    Attributes:
        taken: how many units each model holds.
    """

    def __init__(self, total: int, models: int) -> None:
        self.total = total
        self.models = models
        self.taken: Counter[str] = Counter()
        # half of the units are divided among the models, the other half is open to all
        self._guaranteed = total // (2 * models) if models > 1 else 0

    @property
    def most(self) -> int:
        """The number of units that one model can hold at most."""
        return self.total - self._guaranteed * (self.models - 1)

    def guarantees(self, model: str, count: int) -> bool:
        """Tell whether ``count`` more units are within the model's guaranteed share."""
        return self.taken[model] + count <= self._guaranteed

    def fits(self, model: str, count: int) -> bool:
        """Tell whether the model may take ``count`` more units now."""
        others = sum(
            max(taken, self._guaranteed) for name, taken in self.taken.items() if name != model
        )
        unseen = self.models - len(self.taken.keys() | {model})
        return others + self._guaranteed * unseen + self.taken[model] + count <= self.total

    def take(self, model: str, count: int) -> None:
        self.taken[model] += count

    def give_back(self, model: str, count: int) -> None:
        self.taken[model] -= count


@dataclass(eq=False)
class _Queued:
    """One request in the queue; ``placed`` is done when it has its places."""

    model: str
    count: int
    placed: asyncio.Future[None]


class AdmissionControl:
    """A number of places, and a bounded queue of requests for them: first come, first served.

    A request for few places does not overtake one for many, unless it falls into the guaranteed
    share of its model.

    Args:
        places: texts that are generated at once.
        waiting: texts that may be requested beyond these.
        patience_s: how long a request waits for places.
        models: how many models are served.
        clock: returns seconds.
    """

    def __init__(
        self,
        places: int = PLACES,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        models: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requested = Shares(places + waiting, models)
        self._places = Shares(places, models)
        self._patience_s = patience_s
        self._clock = clock
        self._queue: list[_Queued] = []
        self._mean_hold_s = LEAST_RETRY_S  # how long recent generations held their places

    @property
    def running(self) -> int:
        """The number of texts that have a place."""
        return self._places.taken.total()

    @property
    def waiting(self) -> int:
        """The number of texts that were requested and have no place yet."""
        return self._requested.taken.total() - self.running

    def check(self, count: int) -> None:
        """Raise `BadRequest` if one request can never have ``count`` places."""
        most = self._places.most
        if count > most:
            raise BadRequest(
                f"{count} texts at once are requested; at most {most} are generated at once", "n"
            )

    @asynccontextmanager
    async def admit(self, model: str, count: int = 1) -> AsyncIterator[None]:
        """Admit a request, which may then wait for places.

        Raises:
            BadRequest: if one request can never have ``count`` places.
            Overloaded: if too many requests wait.
        """
        self.check(count)
        if not self._requested.fits(model, count):
            raise self._overloaded()
        self._requested.take(model, count)
        try:
            yield
        finally:
            self._requested.give_back(model, count)

    @asynccontextmanager
    async def place(self, model: str, count: int = 1) -> AsyncIterator[None]:
        """Wait for ``count`` places and hold them.

        Raises:
            Overloaded: if they are not free in time.
        """
        await self._take(model, count)
        since = self._clock()
        try:
            yield
        finally:
            self._mean_hold_s = ewma(self._mean_hold_s, self._clock() - since, FADE)
            self._give_back(model, count)

    async def _take(self, model: str, count: int) -> None:
        queued = _Queued(model, count, asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        self._place_queued()
        if queued.placed.done():
            return
        try:
            await asyncio.wait({queued.placed}, timeout=self._patience_s)
        except asyncio.CancelledError:
            if queued.placed.done():
                self._give_back(model, count)
            raise
        finally:
            if not queued.placed.done():
                self._queue.remove(queued)
                self._place_queued()
        if not queued.placed.done():
            raise self._overloaded()

    def _give_back(self, model: str, count: int) -> None:
        self._places.give_back(model, count)
        self._place_queued()

    def _place_queued(self) -> None:
        """Give places to queued requests, in order, as far as there are places.

        Requests of other models pass one that has to wait only into their guaranteed shares, which
        the waiting request could never have.
        """
        blocked: set[str] = set()  # models whose next request waits
        for queued in list(self._queue):
            if len(blocked) == self._places.models:
                return
            if queued.model in blocked:
                continue
            if self._places.guarantees(queued.model, queued.count) or (
                not blocked and self._places.fits(queued.model, queued.count)
            ):
                self._queue.remove(queued)
                self._places.take(queued.model, queued.count)
                queued.placed.set_result(None)
            else:
                blocked.add(queued.model)

    def _overloaded(self) -> Overloaded:
        until_free_s = self._mean_hold_s * (1 + self.waiting) / self._places.total
        retry_after_s = min(MOST_RETRY_S, max(LEAST_RETRY_S, until_free_s))
        return Overloaded(retry_after_s, self.running, self.waiting)
