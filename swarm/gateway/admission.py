"""How many texts may be asked for and written at once, and whose turn is next.

A request is *admitted* from when it has been read until it is answered, and holds *places* while
its texts are written. In between its prompt is read and its model's peers are looked for, which may
take long, and holds nobody up.

Where several models are served, each is sure of a share: the rest goes to whoever asks first. So a
model whose peers are gone, and whose requests all wait, leaves places to the others.
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
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 60.0
FADE = 0.8  # what earlier generations count in how long one takes


class Shares:
    """A number of things that models share.

    Each model is sure of some, which no other model can take.

    Attributes:
        taken: how many each model holds.
    """

    def __init__(self, total: int, models: int) -> None:
        self.total, self.models = total, models
        self.taken: Counter[str] = Counter()
        # one half is divided, the other is for whoever asks
        self._sure = total // (2 * models) if models > 1 else 0

    @property
    def most(self) -> int:
        """How many one model can hold."""
        return self.total - self._sure * (self.models - 1)

    def sure(self, model: str, count: int) -> bool:
        """Whether this model may have so many more whatever others want."""
        return self.taken[model] + count <= self._sure

    def fits(self, model: str, count: int) -> bool:
        """Whether this model may have so many more now."""
        others = sum(max(taken, self._sure) for name, taken in self.taken.items() if name != model)
        unseen = self.models - len(self.taken.keys() | {model})
        return others + self._sure * unseen + self.taken[model] + count <= self.total

    def take(self, model: str, count: int) -> None:
        self.taken[model] += count

    def give_back(self, model: str, count: int) -> None:
        self.taken[model] -= count


@dataclass(eq=False)
class _Turn:
    """One request in the line."""

    model: str
    count: int
    called: asyncio.Future[None]


class Admission:
    """A number of places, and a bounded number of those who wait for some: first come, first
    served.

    A request for many places is not overtaken by one for few, unless it waits for a share of its
    model.

    Args:
        places: texts that are written at once.
        waiting: texts that may be asked for beyond these.
        patience_s: how long a request waits for places.
        models: how many are served.
        clock: tells seconds.
    """

    def __init__(
        self,
        places: int = PLACES,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        models: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admitted, self._places = Shares(places + waiting, models), Shares(places, models)
        self._patience_s, self._clock = patience_s, clock
        self._line: list[_Turn] = []
        self._held_s = LEAST_RETRY_S  # that a generation lately took

    @property
    def running(self) -> int:
        """Texts that have a place."""
        return self._places.taken.total()

    @property
    def waiting(self) -> int:
        """Texts that are asked for and have no place yet."""
        return self._admitted.taken.total() - self.running

    def check(self, count: int) -> None:
        """Raises `BadRequest` if there are never so many places."""
        most = self._places.most
        if count > most:
            raise BadRequest(
                f"{count} texts at once are asked for, and at most {most} are written", "n"
            )

    @asynccontextmanager
    async def admit(self, model: str, count: int = 1) -> AsyncIterator[None]:
        """Be one of those who may wait for places.

        Raises:
            BadRequest: if there are never so many places.
            Overloaded: if too many wait.
        """
        self.check(count)
        if not self._admitted.fits(model, count):
            raise self._overloaded()
        self._admitted.take(model, count)
        try:
            yield
        finally:
            self._admitted.give_back(model, count)

    @asynccontextmanager
    async def place(self, model: str, count: int = 1) -> AsyncIterator[None]:
        """Hold so many places, as soon as it is our turn.

        Raises:
            Overloaded: if the line does not move.
        """
        await self._take(model, count)
        since = self._clock()
        try:
            yield
        finally:
            self._held_s = ewma(self._held_s, self._clock() - since, FADE)
            self._give_back(model, count)

    async def _take(self, model: str, count: int) -> None:
        turn = _Turn(model, count, asyncio.get_running_loop().create_future())
        self._line.append(turn)
        self._call()
        if turn.called.done():
            return
        try:
            await asyncio.wait({turn.called}, timeout=self._patience_s)
        except asyncio.CancelledError:
            if turn.called.done():
                self._give_back(model, count)
            raise
        finally:
            if not turn.called.done():
                self._line.remove(turn)
                self._call()
        if not turn.called.done():
            raise self._overloaded()

    def _give_back(self, model: str, count: int) -> None:
        self._places.give_back(model, count)
        self._call()

    def _call(self) -> None:
        """Call in those for whom there are places, in turn.

        Behind a request that still waits, those of other models go on only into what they are sure
        of: it could never have that anyhow.
        """
        behind: set[str] = set()  # models whose next request waits
        for turn in list(self._line):
            if len(behind) == self._places.models:
                return
            if turn.model in behind:
                continue
            if self._places.sure(turn.model, turn.count) or (
                not behind and self._places.fits(turn.model, turn.count)
            ):
                self._line.remove(turn)
                self._places.take(turn.model, turn.count)
                turn.called.set_result(None)
            else:
                behind.add(turn.model)

    def _overloaded(self) -> Overloaded:
        until_free = self._held_s * (1 + self.waiting) / self._places.total
        return Overloaded(
            self.running, self.waiting, min(MOST_RETRY_S, max(LEAST_RETRY_S, until_free))
        )
