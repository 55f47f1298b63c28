"""Earlier texts of each owner, which finished ones join a little at a time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor

from swarm.client.by_owner import ByOwner
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.util.tasks import end

MAX_REMEMBERED = 32  # owners whose earlier texts are kept, 5 MB each
MAX_WAITING = 16  # finished texts; of more, the oldest are lost


class TextMemory:
    """The earlier texts of each owner.

    Adding a long text takes a fifth of a second. It is done in the thread that drafts, where
    earlier texts are read, but in slices of less than a millisecond, between which drafts have
    their turn. A thread of its own would be worse: Python lets it run for 5 ms at a time, during
    which no other one gets on.

    Call `close` before that thread ends.

    Args:
        most: owners whose texts are kept; the one that wrote last longest ago is forgotten.
    """

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._owners = ByOwner(EarlierTexts, most)
        self._waiting: deque[tuple[EarlierTexts, tuple[int, ...]]] = deque(maxlen=MAX_WAITING)
        self._adding: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many owners have texts."""
        return len(self._owners)

    def of(self, owner: str) -> EarlierTexts:
        """Return the earlier texts of an owner. They may grow while they are in use."""
        return self._owners.of(owner)

    def add(self, earlier: EarlierTexts, text: Sequence[int], drafting: Executor) -> None:
        """Have a finished text join earlier ones, in the thread of ``drafting``."""
        self._waiting.append((earlier, tuple(text)))
        if self._adding is None or self._adding.done():
            self._adding = asyncio.create_task(self._add_all(drafting))

    async def close(self) -> None:
        """Add nothing any more. Never fails."""
        self._waiting.clear()
        if self._adding is not None:
            await end(self._adding)

    async def _add_all(self, drafting: Executor) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            earlier, text = self._waiting.popleft()
            slices = earlier.adding(text)
            while await loop.run_in_executor(drafting, next, slices, None) is not None:
                pass
