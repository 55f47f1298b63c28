"""So much of something for each key in so much time."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Allowance:
    """Lets each key take `amount` in `seconds`, counted anew after these; so twice as much around
    that moment.

    Remembers `MAX_KEYS` keys at most, and while it is full gives nothing to others.
    """

    MAX_KEYS = 100_000

    def __init__(self, amount: float, seconds: float, clock: Callable[[], float]) -> None:
        self._amount, self._seconds, self._clock = amount, seconds, clock
        self._taken: dict[Hashable, float] = {}
        self._since = clock()

    def take(self, key: Hashable, amount: float = 1.0) -> bool:
        """Take it, if it is there as a whole.

        An `amount` of 0 asks whether more was charged than there is.
        """
        if not self.allows(key, amount):
            return False
        self.charge(key, amount)
        return True

    def allows(self, key: Hashable, amount: float = 1.0) -> bool:
        """Whether `take` would. Takes nothing."""
        now = self._clock()
        if not self._since <= now < self._since + self._seconds:
            self._taken, self._since = {}, now
        known = key in self._taken or len(self._taken) < self.MAX_KEYS
        return known and self._taken.get(key, 0.0) + amount <= self._amount

    def charge(self, key: Hashable, amount: float) -> None:
        """Take it from a key that has taken before, even if it is not there."""
        self._taken[key] = self._taken.get(key, 0.0) + amount
