"""Simulated time. A process is a generator that yields how many seconds it waits."""

import heapq
from collections.abc import Generator
from itertools import count

Process = Generator[float, None, None]


class Events:
    """The clock, and the processes that wait for their times.

    Of two at the same time, the one that was planned first runs first.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._order = count()
        self._waiting: list[tuple[float, int, Process]] = []

    def start(self, process: Process, after_s: float = 0.0) -> None:
        """Let a process begin ``after_s`` from now."""
        heapq.heappush(self._waiting, (self.now_s + after_s, next(self._order), process))

    def run(self, until_s: float) -> None:
        """Run all processes up to ``until_s``."""
        while self._waiting and self._waiting[0][0] <= until_s:
            self.now_s, _, process = heapq.heappop(self._waiting)
            pause_s = next(process, None)
            if pause_s is not None:
                self.start(process, pause_s)
        self.now_s = until_s
