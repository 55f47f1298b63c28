"""So much of something for each key in so much time."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Allowance:
    """Lets each key take `amount` in `seconds`, counted anew after these; so twice as much around that moment.

    Remembers `MAX_KEYS` keys at most, and while it is full gives nothing to others.
    """

    MAX_KEYS = 100_000

    def __init__(self, amount: float, seconds: float, clock: Callable[[], float]) -> None:
        self._amount, self._seconds, self._clock = amount, seconds, clock
        self._taken: dict[Hashable, float] = {}
        self._since = clock()

    def take(self, key: Hashable, amount: float = 1.0) -> bool:
        """Take it, if it is there as a whole. An `amount` of 0 asks whether more was charged than there is."""
        now = self._clock()
        if not self._since <= now < self._since + self._seconds:
            self._taken, self._since = {}, now
        taken = self._taken.get(key, 0.0) + amount
        if taken > self._amount or (key not in self._taken and len(self._taken) >= self.MAX_KEYS):
            return False
        self._taken[key] = taken
        return True

    def charge(self, key: Hashable, amount: float) -> None:
        """Take it from a key that has taken before, even if it is not there."""
        self._taken[key] = self._taken.get(key, 0.0) + amount
