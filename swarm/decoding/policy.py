"""How far ahead of the target a generation drafts and sends."""

from dataclasses import dataclass
from typing import Literal, Protocol

# Frames in flight. A long prompt, or a long stream, must not fill every queue of the chain.
MAX_DEPTH = 64

# Why nothing is drafted: plain decoding was asked for; there is no drafter; it has failed; drafting
# takes too long to gain anything; drafts are right too seldom to gain anything.
PlainReason = Literal["requested", "no_draft", "draft_failed", "draft_slow", "draft_wrong"]


@dataclass(frozen=True)
class SpeculationPlan:
    """What may be drafted and sent now. The default is plain decoding.

    Attributes:
        window: the most drafted tokens in a frame; 0 drafts nothing.
        depth: the most frames that wait for an answer. With 1, a window is drafted whole, sent, and
            waited for (the scheme of DSD, arXiv 2511.11733). With more, drafted tokens are sent
            while earlier frames are on their way.
        branches: the most choices of the draft for one place that are sent; 1 is the first alone.
        leaves: the most places of the tree that are drafted at once, if several frames may wait;
            otherwise one place.
        least_chance: tokens that the text reaches with a lower chance are neither sent nor
            continued.
        pace_ms: the least time between two frames, unless the text left the drafted path.
        calm_ms: the most that `pace_ms` grows to, by one pace with every further frame: the first
            frames carry the likeliest tokens.
        reason: why nothing is drafted; None if ``window`` is above 0.
    """

    window: int = 0
    depth: int = 1
    branches: int = 1
    leaves: int = 1
    least_chance: float = 0.0
    pace_ms: float = 0.0
    calm_ms: float = 0.0
    reason: PlainReason | None = None


@dataclass(frozen=True)
class LoopReport:
    """What was measured of one answer of the chain."""

    positions: int  # tokens that the chain computed for it
    loop_ms: float  # from sending the last of them to having the answer
    drafted: int  # drafted tokens that it judged, or made void
    kept: int  # of these, accepted
    draft_ms: float  # spent drafting since the answer before; reading the prompt does not count
    draft_tokens: int = 0  # by which the longest drafted line grew in this time
    stage_ms: float = 0.0  # compute of the slowest stage
    queue_ms: float = 0.0  # waiting for other sessions, at the peer where that took longest
    judge_ms: float = 0.0  # from taking the answer to having judged it
    tokens: int = 1  # that it committed
    elapsed_ms: float = 0.0  # since the answer before was judged


class SpeculationPolicy(Protocol):
    """Decides how far ahead to go, by what the loops show."""

    def plan(self) -> SpeculationPlan: ...

    def observe(self, loop: LoopReport) -> None:
        """Learn from a loop. The one that carried the prompt is not shown."""
        ...
