"""Averages of what changes while it is measured: old values fade."""

from dataclasses import dataclass

FADE = 0.95  # weight of a measurement at the next loop: about the last twenty loops decide
RIDGE = 0.25  # squared positions: as if every point had been off by half a position


def ewma(before: float | None, value: float, fade: float) -> float:
    """Return an exponentially weighted moving average after ``value``.

    Args:
        before: the average until then; None for the first value.
        fade: what ``before`` counts, of 1.
    """
    return value if before is None else fade * before + (1 - fade) * value


@dataclass
class FadingMean:
    """The mean of all values, each weighted by ``fade`` to the power of how many came after it.

    Unlike `ewma`, its first values do not count more than they should, and it knows how much it has
    seen.
    """

    fade: float = FADE
    sum: float = 0.0  # of the weighted values
    weight: float = 0.0  # of all values

    @property
    def value(self) -> float | None:
        """The mean; None before the first value."""
        return self.sum / self.weight if self.weight else None

    def add(self, value: float) -> None:
        """Let the earlier values fade and count one more."""
        self.age()
        self.count(value)

    def age(self) -> None:
        """Let the values fade without a new one."""
        self.sum *= self.fade
        self.weight *= self.fade

    def count(self, value: float, weight: float = 1.0) -> None:
        """Count one more value, or as many equal ones as ``weight``; the earlier ones do not
        fade."""
        self.sum += value * weight
        self.weight += weight

    def with_prior(self, prior: float, weight: float) -> float:
        """Return the mean, with ``prior`` counted as ``weight`` values."""
        return (self.sum + prior * weight) / (self.weight + weight)


@dataclass
class FadingLine:
    """Least squares of ``y = fixed + slope * x``, both at least 0, whose old points fade.

    The slope is drawn gently to 0: points at one and the same x say nothing about it.
    """

    _n: float = 0.0
    _x: float = 0.0
    _y: float = 0.0
    _xx: float = 0.0
    _xy: float = 0.0

    def __bool__(self) -> bool:
        return self._n > 0

    def add(self, x: float, y: float) -> None:
        """Let the earlier points fade and count one more."""
        self._n = self._n * FADE + 1
        self._x = self._x * FADE + x
        self._y = self._y * FADE + y
        self._xx = self._xx * FADE + x * x
        self._xy = self._xy * FADE + x * y

    @property
    def slope(self) -> float:
        """Of the line, at least 0; there must be a point."""
        mean_x = self._x / self._n
        mean_y = self._y / self._n
        spread = self._xx / self._n - mean_x * mean_x
        together = self._xy / self._n - mean_x * mean_y
        return min(max(0.0, together / (spread + RIDGE)), mean_y / mean_x)

    @property
    def fixed(self) -> float:
        """``y`` at ``x = 0``, at least 0; there must be a point."""
        return max(0.0, self._y / self._n - self.slope * self._x / self._n)
