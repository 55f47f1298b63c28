"""Entering a network whose bootstrap nodes, or whose clock, may come up together with this peer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from peers.events import News, Say
from swarm.errors import ClockOff, NoBootstrap

PATIENCE_S = 60.0  # a bootstrap node on a busy computer takes half of it to start
PAUSE_S = 1.0

T = TypeVar("T")


async def insist(
    enter: Callable[[], Awaitable[T]],
    say: Say,
    patience_s: float = PATIENCE_S,
    pause_s: float = PAUSE_S,
) -> T:
    """The result of `enter`, tried again while no bootstrap node answers or our clock is off.

    What is waited for is said once.

    Raises:
        NoBootstrap: at once if none is configured, else when `patience_s` have passed.
        ClockOff: when `patience_s` have passed.
    """
    deadline_s = time.monotonic() + patience_s
    waiting = False
    while True:
        try:
            return await enter()
        except (ClockOff, NoBootstrap) as error:
            if time.monotonic() > deadline_s or (
                isinstance(error, NoBootstrap) and not error.tried
            ):
                raise
            if not waiting:
                sentence = f"{error} This peer tries again for {patience_s:.0f} s."
                say(News("waiting", sentence, {"patience_s": patience_s}))
            waiting = True
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
