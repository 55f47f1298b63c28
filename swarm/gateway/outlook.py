"""Whether a model's peers are there, looked at once for all who want to know.

A text whose peers are gone waits for others to come, and holds its place meanwhile. So once a
model's texts stand still, requests for it wait here instead, where they hold no place, until a
chain is found.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from swarm.errors import SwarmError
from swarm.request import DEFAULT_PATIENCE_S
from swarm.routing.chain import MissingLayers
from swarm.util.tasks import within

SILENT_S = 2.0  # after which texts that bring no token are doubted
LOOK_TIMEOUT_S = 10.0  # to find a chain
PAUSE_S = 0.5  # between two looks
PATIENCE_S = DEFAULT_PATIENCE_S  # for peers that the directory names and that do not answer


class NoChain(SwarmError):
    """No chain was found in time."""

    def __str__(self) -> str:
        return f"no chain was found within {LOOK_TIMEOUT_S:g} s"


class Outlook:
    """What is known of one model's peers.

    Args:
        find_chain: raises a `SwarmError` if there is none.
        clock: tells seconds.
    """

    def __init__(
        self, find_chain: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find_chain, self._clock = find_chain, clock
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")  # when the last look ended
        self._why: SwarmError | None = None  # what came of that look
        self._running = 0  # texts that are being written
        # when one of them began, with none before it, or brought a token
        self._heard_at = float("-inf")
        self._failed = False  # the last one that ended did so for want of peers

    def began(self) -> None:
        """A text is being written, until `ended`."""
        if not self._running:
            self._heard_at = self._clock()
        self._running += 1

    def heard(self) -> None:
        """A text brought a token."""
        self._heard_at, self._failed = self._clock(), False

    def ended(self, for_want_of_peers: bool = False) -> None:
        self._running -= 1
        self._failed |= for_want_of_peers

    @property
    def in_doubt(self) -> bool:
        return self._failed or (self._running > 0 and self._clock() - self._heard_at > SILENT_S)

    async def look(self) -> None:
        """Raises the `SwarmError` that says why there is no chain now.

        Those who ask at the same time share a look.
        """
        asked_at = self._clock()
        async with self._looking:
            if self._looked_at <= asked_at:
                self._why = await self._look()
                self._looked_at = self._clock()
        if self._why is not None:
            raise self._why.with_traceback(None)

    async def _look(self) -> SwarmError | None:
        try:
            await within(LOOK_TIMEOUT_S, self._find_chain())
        except asyncio.TimeoutError:
            return NoChain()
        except SwarmError as error:
            return error
        self._failed = False
        return None

    async def promising(self) -> None:
        """Return if a text is likely to find its peers; where there is doubt, wait for a chain,
        `PATIENCE_S` at most.

        Raises:
            SwarmError: if no peer is expected, or none has come in time.
        """
        deadline = self._clock() + PATIENCE_S
        while self.in_doubt:
            try:
                return await self.look()
            except MissingLayers as missing:
                if not missing.expected or self._clock() > deadline:
                    raise
            await asyncio.sleep(PAUSE_S)
