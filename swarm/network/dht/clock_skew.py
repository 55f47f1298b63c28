"""The distance of our clock from other nodes' clocks: the DHT drops records with wrong times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median

from swarm.errors import ClockOff

MAX_SKEW_S = 2.5  # of a node that enters: others refuse it from 3 s on, and clocks drift
MAX_TOLD = 64  # nodes whose clocks are remembered


class ClockSkew:
    """Our clock beside those of the nodes that answered with their time.

    Their times are kept as distances from a steady clock, so that a step of ours shows at once.

    Args:
        time_of_day: seconds since 1970.
        steady: seconds, never turned back. It may stand still while the computer sleeps, so ask
            other nodes again before concluding that our clock is off.
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
        """The number of nodes that have answered with their time."""
        return len(self._told)

    @property
    def ahead_s(self) -> float:
        """By how much our clock is ahead of the median of the others; 0 if none has answered."""
        if not self._told:
            return 0.0
        return (
            self._time_of_day()
            - self.steady()
            - median(distance for _, distance in self._told.values())
        )

    def told(self, node: str, time_s: float, asked_at: float) -> None:
        """Note the time that a node has just answered; ``asked_at`` is of `steady`."""
        if not math.isfinite(time_s) or not time_s:
            return
        now = self.steady()
        self._told.pop(node, None)
        # Request and answer are assumed to take equally long.
        self._told[node] = now, time_s - (asked_at + now) / 2
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]

    def forget_before(self, steady_s: float) -> None:
        """Forget answers from before, if there are any since."""
        later = {node: told for node, told in self._told.items() if told[0] >= steady_s}
        self._told = later or self._told

    def check(self, max_skew_s: float) -> None:
        """Raise ClockOff if our clock is off by more than ``max_skew_s``."""
        if abs(ahead_s := self.ahead_s) > max_skew_s:
            raise ClockOff(ahead_s, len(self._told))
