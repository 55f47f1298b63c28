"""How many tokens to draft for a loop that is waited for: the window with the best measured speed.

A loop with a window of k drafted tokens takes k drafts and the chain's time for k + 1 positions,
which is fitted as ``fixed + slope * positions``. It brings ``1 + a1 + a1*a2 + ... + a1*...*ak``
tokens, where ``ai`` is the chance that the i-th drafted token is accepted if all before it were.
Both change while a text is written, so old measurements fade.
"""

from dataclasses import dataclass, field

from swarm.decoding.policy import LoopReport, PlainReason, SpeculationPlan
from swarm.util.averages import FadingLine, FadingMean

FIRST_WINDOW = 4  # before anything is known
MAX_AUTO_WINDOW = 32  # a draft that is right 19 times in 20 rarely gets further
PROBE_EVERY = 24  # loops without drafts, until the draft is tried again
PROBE_WINDOW = 2
PRIOR_ALPHA = 0.7  # until a draft has shown how good it is
PRIOR_WEIGHT = 2.0  # measured in tokens


@dataclass(frozen=True)
class FixedWindow:
    """Always drafts the same window, and waits for its answer."""

    window: int

    def plan(self) -> SpeculationPlan:
        return SpeculationPlan(self.window, reason=None if self.window else "requested")

    def observe(self, loop: LoopReport) -> None:
        pass


@dataclass
class AutoWindow:
    """Takes the window with the most expected tokens per second; 0 if drafting does not pay."""

    most: int = MAX_AUTO_WINDOW
    _line: FadingLine = field(default_factory=FadingLine)
    _draft_ms: FadingMean = field(default_factory=FadingMean)
    # the share of drafted tokens that is accepted, by depth
    _accepted: list[FadingMean] = field(default_factory=list)
    _idle: int = 0  # loops since the last draft

    def plan(self) -> SpeculationPlan:
        size = self._size()
        return SpeculationPlan(size, reason=None if size else self._reason())

    def _reason(self) -> PlainReason:
        """Return why no window pays: would one that was drafted in no time?"""
        line = self._line
        free = best_window(self._acceptance(), line.fixed, line.slope, 0.0)
        return "draft_slow" if free else "draft_wrong"

    def _size(self) -> int:
        if self._draft_ms.value is None or not self._line:
            return min(FIRST_WINDOW, self.most)
        line = self._line
        best = best_window(self._acceptance(), line.fixed, line.slope, self._draft_ms.value)
        if best == 0 and self._idle >= PROBE_EVERY:
            return min(PROBE_WINDOW, self.most)
        return best

    def observe(self, loop: LoopReport) -> None:
        self._line.add(loop.positions, loop.loop_ms)
        self._idle = 0 if loop.drafted else self._idle + 1
        if not loop.drafted:
            return
        self._draft_ms.add(loop.draft_ms / loop.drafted)
        for accepted in self._accepted:
            accepted.age()
        # Tokens behind the first miss were not judged.
        for depth in range(min(loop.kept + 1, loop.drafted)):
            if depth == len(self._accepted):
                self._accepted.append(FadingMean())
            self._accepted[depth].count(depth < loop.kept)

    def _acceptance(self) -> list[float]:
        """Return the chance of acceptance at each depth, with the mean of all depths as prior."""
        every = FadingMean(
            sum=sum(depth.sum for depth in self._accepted),
            weight=sum(depth.weight for depth in self._accepted),
        )
        alpha = every.with_prior(PRIOR_ALPHA, PRIOR_WEIGHT)
        chances = [depth.with_prior(alpha, PRIOR_WEIGHT) for depth in self._accepted]
        return (chances + [alpha] * self.most)[: self.most]


def best_window(acceptance: list[float], fixed_ms: float, slope_ms: float, draft_ms: float) -> int:
    """Return the window with the most expected tokens per millisecond, the smallest of equals.

    Args:
        acceptance: chance that the drafted token at each depth is accepted, if all before it were;
            its length is the longest window.
        fixed_ms, slope_ms: a loop with n positions takes ``fixed + slope * n``.
        draft_ms: time for one drafted token.
    """
    best = 0
    best_rate = 0.0
    tokens = reach = 1.0
    for window, chance in enumerate([1.0, *acceptance]):
        if window:
            reach *= chance
            tokens += reach
        rate = tokens / max(window * draft_ms + fixed_ms + slope_ms * (window + 1), 1e-9)
        if rate > best_rate:
            best = window
            best_rate = rate
    return best
