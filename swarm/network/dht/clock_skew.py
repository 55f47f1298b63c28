"""How far our clock is from the others': the DHT drops records of nodes that live in another
time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median

from swarm.errors import ClockOff

MAX_SKEW_S = 2.5  # of a node that enters: others refuse it from 3 s on, and clocks drift
MAX_TOLD = 64  # nodes whose time is remembered


class ClockSkew:
    """Our clock, beside those of the nodes that told us their time.

    What they told is kept as the distance from a clock that nobody sets, so that a step of ours
    shows at once.

    Args:
        time_of_day: seconds since 1970.
        steady: seconds, never turned back. It may stand still while the computer sleeps, so ask the
            others again before you believe that our clock is off.
    """

    def __init__(
        self,
        time_of_day: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steady = steady
        self._time_of_day = time_of_day
        # By node: when it told its time, and how far that is from our steady clock.
        self._told: dict[str, tuple[float, float]] = {}

    @property
    def nodes(self) -> int:
        """How many have told their time."""
        return len(self._told)

    @property
    def ahead_s(self) -> float:
        """By how much our clock is ahead of the others' median; 0 if no node has told its time."""
        if not self._told:
            return 0.0
        return (
            self._time_of_day()
            - self.steady()
            - median(distance for _, distance in self._told.values())
        )

    def told(self, node: str, time_s: float, asked_at: float) -> None:
        """A node has answered just now what its time is; ``asked_at`` is of `steady`."""
        if not math.isfinite(time_s) or not time_s:
            return
        now = self.steady()
        self._told.pop(node, None)
        # The ways there and back are taken to be equally long.
        self._told[node] = now, time_s - (asked_at + now) / 2
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]

    def forget_before(self, steady_s: float) -> None:
        """Forget what was told earlier, if anything was told since."""
        later = {node: told for node, told in self._told.items() if told[0] >= steady_s}
        self._told = later or self._told

    def check(self, max_skew_s: float) -> None:
        """Raises ClockOff if our clock is further away from the others'."""
        if abs(ahead_s := self.ahead_s) > max_skew_s:
            raise ClockOff(ahead_s, len(self._told))
