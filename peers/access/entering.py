"""Enters a network whose bootstrap nodes, or this computer's clock, may not be ready yet."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from peers.events import Emit, PeerEvent
from swarm.errors import ClockOff, NoBootstrap

PATIENCE_S = 60.0  # a bootstrap node on a busy computer takes half of it to start
PAUSE_S = 1.0

T = TypeVar("T")


async def insist(
    enter: Callable[[], Awaitable[T]],
    emit: Emit,
    patience_s: float = PATIENCE_S,
    pause_s: float = PAUSE_S,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return the result of `enter`; try again while no bootstrap node answers or our clock is off.

    The operator is told once what this waits for.

    Args:
        pause_s: mean time between two tries.
        clock: seconds, monotonic.

    Raises:
        NoBootstrap: at once if none is configured, else when `patience_s` have passed.
        ClockOff: when `patience_s` have passed.
    """
    deadline_s = clock() + patience_s
    waiting = False
    while True:
        try:
            return await enter()
        except (ClockOff, NoBootstrap) as error:
            if clock() > deadline_s or (isinstance(error, NoBootstrap) and not error.tried):
                raise
            if not waiting:
                sentence = f"{error} This peer tries again for {patience_s:.0f} s."
                emit(PeerEvent("waiting", sentence, {"patience_s": patience_s}))
            waiting = True
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
