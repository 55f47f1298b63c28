"""How far to speculate while windows are in flight: as far as pays, never at others' expense.

A token that is sent ahead saves up to a loop if the text gets to it, and costs the peers one
position whether it does or not. With idle peers nearly every chance is worth taking. Where other
sessions wait for the same peers, each of our positions delays them. So the less likely tokens are
left out first, until only the nearly certain ones remain.

Drafting takes the client's own power, so it has to show that it brings something
(`swarm.decoding.payoff`).
"""

from dataclasses import dataclass, field

from swarm.decoding.payoff import Payoff
from swarm.decoding.policy import MAX_DEPTH, LoopReport, SpeculationPlan
from swarm.util.averages import FadingMean

# Drafted tokens in a frame. Frames are short, so that the first token need not wait for the last.
STREAM_WINDOW = 16
STREAM_BRANCHES = 3  # beyond the third choice of a draft, the target rarely agrees
STREAM_LEAVES = 8  # places of the tree that are drafted in one forward of the draft model
# Frames per loop, in the long run. More would make peers work more often, and the text 1 % faster.
LOOP_FRAMES = 20
# The least chance worth sending to idle peers. Below, their work grows much faster than the speed.
IDLE_CHANCE = 0.04
BUSY_CHANCE = 0.7  # the least chance worth sending to busy peers
BUSY_SHARE = 0.2  # share of a loop spent in queues from which on peers are busy
BRANCH_SHARE = 0.05  # share of a loop spent in queues above which no second choices are sent


@dataclass
class Streaming:
    """Sends at the pace of the slowest stage, and less where frames wait for other sessions."""

    window: int = STREAM_WINDOW
    depth: int = MAX_DEPTH
    branches: int = STREAM_BRANCHES
    _loop_ms: FadingMean = field(default_factory=FadingMean)
    _stage_ms: FadingMean = field(default_factory=FadingMean)
    _queue_ms: FadingMean = field(default_factory=FadingMean)
    _payoff: Payoff = field(default_factory=Payoff)

    def plan(self) -> SpeculationPlan:
        if not self._payoff.drafts:
            return SpeculationPlan(reason=self._payoff.reason)
        share = self._queue_share
        return SpeculationPlan(
            window=self.window,
            depth=self.depth,
            leaves=STREAM_LEAVES,
            branches=self.branches if share <= BRANCH_SHARE else 1,
            least_chance=IDLE_CHANCE + (BUSY_CHANCE - IDLE_CHANCE) * min(1.0, share / BUSY_SHARE),
            pace_ms=self._stage_ms.value or 0.0,
            calm_ms=(self._loop_ms.value or 0.0) / LOOP_FRAMES,
        )

    def observe(self, loop: LoopReport) -> None:
        self._loop_ms.add(loop.loop_ms)
        self._stage_ms.add(loop.stage_ms)
        self._queue_ms.add(loop.queue_ms)
        self._payoff.observe(loop)

    @property
    def _queue_share(self) -> float:
        """Share of a loop spent waiting for other sessions, at the peer where that is longest."""
        return (self._queue_ms.value or 0.0) / max(self._loop_ms.value or 0.0, 1e-3)
