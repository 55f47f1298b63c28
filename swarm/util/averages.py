"""What is measured while a text is written changes meanwhile: old measurements fade."""

from dataclasses import dataclass

FADE = 0.95  # what a measurement still counts for one loop later: the last twenty loops decide
RIDGE = 0.25  # squared positions: as if every point had been off by half a position


@dataclass
class FadingMean:
    """A mean whose old values fade."""

    _sum: float = 0.0
    _weight: float = 0.0

    @property
    def value(self) -> float | None:
        return self._sum / self._weight if self._weight else None

    def add(self, value: float) -> None:
        self._sum, self._weight = self._sum * FADE + value, self._weight * FADE + 1.0


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
        self._n, self._x, self._y = self._n * FADE + 1, self._x * FADE + x, self._y * FADE + y
        self._xx, self._xy = self._xx * FADE + x * x, self._xy * FADE + x * y

    @property
    def slope(self) -> float:
        mean_x, mean_y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - mean_x * mean_x
        together = self._xy / self._n - mean_x * mean_y
        return min(max(0.0, together / (spread + RIDGE)), mean_y / mean_x)

    @property
    def fixed(self) -> float:
        return max(0.0, self._y / self._n - self.slope * self._x / self._n)
