"""Limits on how often and how many at once: pure counters, with the clock handed in.

Keys are whatever tells one asker from another. What is remembered of them is bounded.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MAX_KEYS = 4096  # that one limiter remembers by default, at about 200 bytes each


@dataclass(frozen=True)
class Rate:
    """``per_second`` in the long run, and ``burst`` at once."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError(f"{self.per_second:g} a second and {self.burst:g} at once are no rate")

    @classmethod
    def a_minute(cls, amount: float) -> "Rate":
        """Return the rate of ``amount`` a minute; after a minute without use, all of it at once."""
        return cls(amount / 60, amount)


class TokenBuckets:
    """A token bucket for each key: in ``t`` seconds a key takes at most ``burst + per_second * t``.

    A bucket may be overdrawn, so that what has happened already is paid off by waiting.

    Of more than ``most_keys`` keys the one that was used least recently is forgotten, and begins
    anew with a full bucket. That gains it something only if its bucket had not filled up since, so
    only where ``most_keys`` others were used meanwhile. An asker with so many keys gains no more by
    it than by using yet another key.

    Args:
        clock: seconds. If it is turned back, no bucket loses anything, nor does one fill up by it.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float], most_keys: int = MAX_KEYS) -> None:
        self.rate = rate
        self._clock = clock
        self._most_keys = most_keys
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens, and when

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: Hashable, amount: float = 1.0) -> bool:
        """Take ``amount`` if it is there; otherwise take nothing."""
        if not self.has(key, amount):
            if key in self._levels:  # a key that asks too much is not forgotten for it
                self._levels.move_to_end(key)
            return False
        self.draw(key, amount)
        return True

    def has(self, key: Hashable, amount: float = 1.0) -> bool:
        """Return whether ``amount`` is there; with 0, whether the bucket is not overdrawn."""
        return self._level(key) >= amount

    def wait_s(self, key: Hashable, amount: float = 1.0) -> float:
        """Return the seconds until ``amount`` is there, 0 if it is. Take nothing."""
        return max(0.0, (amount - self._level(key)) / self.rate.per_second)

    def draw(self, key: Hashable, amount: float = 1.0) -> float:
        """Take ``amount`` in any case.

        Returns the seconds after which the bucket is not overdrawn any more.
        """
        level = self._level(key) - amount
        self._set(key, level)
        return max(0.0, -level / self.rate.per_second)

    def give_back(self, key: Hashable, amount: float = 1.0) -> None:
        """Undo a `take` of what did not come about."""
        self._set(key, min(self._level(key) + amount, self.rate.burst))

    def forget(self, key: Hashable) -> None:
        """Begin anew with this key."""
        self._levels.pop(key, None)

    def _level(self, key: Hashable) -> float:
        if key not in self._levels:
            return self.rate.burst
        level, since = self._levels[key]
        now = self._clock()
        if now < since:  # the clock was turned back
            self._levels[key] = level, now
            return level
        return min(level + (now - since) * self.rate.per_second, self.rate.burst)

    def _set(self, key: Hashable, level: float) -> None:
        self._levels[key] = level, self._clock()
        self._levels.move_to_end(key)
        if len(self._levels) > self._most_keys:
            self._levels.popitem(last=False)


class ConcurrencyLimit:
    """How many may be under way: ``most`` in all, and ``each`` of one key."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._under_way: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return self._under_way.total()

    def enter(self, key: Hashable) -> bool:
        """Count one more of this key, unless there are too many. `leave` ends what is counted."""
        if len(self) >= self._most or self._under_way[key] >= self._each:
            return False
        self._under_way[key] += 1
        return True

    def leave(self, key: Hashable) -> None:
        """The other half of an `enter` that was granted."""
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
