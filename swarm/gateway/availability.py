"""Whether a model's peers are available, found out once for all requests that need to know.

A text whose peers are gone waits for other peers, and holds its place meanwhile. So once a model's
texts stall, new requests for it wait here, where they hold no place, until a chain is found.
Requests that hold a place and have no token yet give it back, and wait here as well.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from swarm.errors import MissingLayers, SwarmError, SwarmUnavailable
from swarm.request import DEFAULT_PATIENCE_S
from swarm.util.tasks import within

SILENT_S = 2.0  # without any token, after which the peers are in doubt
LOOK_TIMEOUT_S = 10.0  # to find a chain
PAUSE_S = 0.5  # between two checks
PATIENCE_S = DEFAULT_PATIENCE_S  # for peers that the directory names and that do not answer


class NoChain(SwarmUnavailable):
    """No chain was found in time."""

    api_code = "missing_layers"

    def __str__(self) -> str:
        return f"no chain was found within {LOOK_TIMEOUT_S:g} s"


class Availability:
    """What is known of the availability of one model's peers.

    Args:
        find_chain: raises a `SwarmError` if there is no chain.
        clock: returns seconds.
    """

    def __init__(
        self, find_chain: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find_chain = find_chain
        self._clock = clock
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")  # when the last check ended
        self._error: SwarmError | None = None  # the result of that check
        self._running = 0  # texts that are being generated
        # when a token last arrived, or the first of the running texts started
        self._heard_at = float("-inf")
        self._failed = False  # the last text that ended did so for want of peers

    def text_started(self) -> None:
        """Note that a text is being generated, until `text_ended`."""
        if not self._running:
            self._heard_at = self._clock()
        self._running += 1

    def token_arrived(self) -> None:
        """Note that a text has a new token."""
        self._heard_at = self._clock()
        self._failed = False

    def text_ended(self, for_want_of_peers: bool = False) -> None:
        """Note the end of a text. The other half of `text_started`."""
        self._running -= 1
        self._failed |= for_want_of_peers

    @property
    def in_doubt(self) -> bool:
        """Whether the last text failed for want of peers, or the running ones stall."""
        return self._failed or (self._running > 0 and self._clock() - self._heard_at > SILENT_S)

    async def check(self) -> None:
        """Raise the `SwarmError` that says why there is no chain now, if there is none.

        Callers at the same time share one check.
        """
        asked_at = self._clock()
        async with self._checking:
            if self._checked_at <= asked_at:
                self._error = await self._check()
                self._checked_at = self._clock()
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def _check(self) -> SwarmError | None:
        try:
            await within(LOOK_TIMEOUT_S, self._find_chain())
        except asyncio.TimeoutError:
            return NoChain()
        except SwarmError as error:
            return error
        self._failed = False
        return None

    async def wait_until_gone(self) -> None:
        """Wait until a check finds no chain. Check only while there is doubt.

        The doubt then stays until a chain is found.
        """
        while True:
            if not self._failed:
                await asyncio.sleep(SILENT_S)
            if self.in_doubt:
                try:
                    await self.check()
                except MissingLayers:
                    self._failed = True
                    return
                except SwarmError:  # no answer to the question: the texts may still go on
                    await asyncio.sleep(PAUSE_S)

    async def wait_until_likely(self) -> None:
        """Wait until a text is likely to find its peers.

        Return at once without doubt; else wait for a chain, `PATIENCE_S` at most.

        Raises:
            SwarmError: if no peer is expected, or none has come in time.
        """
        deadline = self._clock() + PATIENCE_S
        while self.in_doubt:
            try:
                return await self.check()
            except MissingLayers as missing:
                if not missing.expected or self._clock() > deadline:
                    raise
            await asyncio.sleep(PAUSE_S)
