"""How far to speculate while windows are in flight: as far as it pays, and never at the expense of
others.

A token that is sent ahead saves up to a loop if the text gets to it, and costs the peers one
position whether it does or not. With idle peers nearly every chance is worth taking. Where other
sessions wait for the same peers, a position of ours is one that they wait for: so the less likely
tokens are left out first, down to little more than what is nearly certain.
"""

from dataclasses import dataclass, field

from swarm.decoding.plan import MAX_DEPTH, Loop, Plan
from swarm.util.averages import FadingMean

# drafted tokens a frame: a frame is short, so that its first token need not wait for its last
STREAM_WINDOW = 16
STREAM_BRANCHES = 3  # beyond the third choice of a draft, the target rarely agrees
STREAM_LEAVES = 8  # places of the tree that are drafted in one forward of the draft model
# frames a loop, in the long run: more would make peers work more often, and the text 1 % faster
LOOP_FRAMES = 20
# worth sending when nobody waits: lower, the peers' work grows much faster than the speed
IDLE_CHANCE = 0.04
BUSY_CHANCE = 0.7  # when others wait most of the time
BUSY_SHARE = 0.2  # of a loop spent in queues, which is "most of the time"
BRANCH_SHARE = 0.05  # of a loop in queues, above which no second choices are sent


@dataclass
class Streaming:
    """Sends what is drafted no faster than the slowest stage computes, and less of it where it
    waits for others."""

    window: int = STREAM_WINDOW
    depth: int = MAX_DEPTH
    branches: int = STREAM_BRANCHES
    _loop_ms: FadingMean = field(default_factory=FadingMean)
    _stage_ms: FadingMean = field(default_factory=FadingMean)
    _queue_ms: FadingMean = field(default_factory=FadingMean)

    def plan(self) -> Plan:
        share = self._queue_share
        return Plan(
            window=self.window,
            depth=self.depth,
            leaves=STREAM_LEAVES,
            branches=self.branches if share <= BRANCH_SHARE else 1,
            least_chance=IDLE_CHANCE + (BUSY_CHANCE - IDLE_CHANCE) * min(1.0, share / BUSY_SHARE),
            pace_ms=self._stage_ms.value or 0.0,
            calm_ms=(self._loop_ms.value or 0.0) / LOOP_FRAMES,
        )

    def observe(self, loop: Loop) -> None:
        self._loop_ms.add(loop.loop_ms)
        self._stage_ms.add(loop.stage_ms)
        self._queue_ms.add(loop.queue_ms)

    @property
    def _queue_share(self) -> float:
        """Of a loop, spent waiting for other sessions at the peer where that takes longest."""
        return (self._queue_ms.value or 0.0) / max(self._loop_ms.value or 0.0, 1e-3)
