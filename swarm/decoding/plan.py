"""How far ahead of the target a generation drafts and sends."""

from dataclasses import dataclass
from typing import Protocol

# frames in flight: a long prompt, or a long stream, must not fill every queue of the chain
MAX_DEPTH = 64


@dataclass(frozen=True)
class Plan:
    """What may be done now. The default is plain decoding.

    Attributes:
        window: drafted tokens a frame at most; 0 drafts nothing.
        depth: frames that wait for an answer at most. With 1, a window is drafted whole, sent, and
            waited for (the paper's scheme); with more, what is drafted is sent while earlier frames
            are on their way.
        branches: choices of the draft for one place that are sent at most; 1 is the first one
            alone.
        leaves: places of the tree that are drafted at once at most, if several frames may wait;
            else one.
        least_chance: tokens that the text gets to less likely are neither sent nor continued.
        pace_ms: between two frames at least, unless the text took another turn.
        calm_ms: what that grows to, by one pace with every frame that follows: the first ones carry
            what is likeliest.
    """

    window: int = 0
    depth: int = 1
    branches: int = 1
    leaves: int = 1
    least_chance: float = 0.0
    pace_ms: float = 0.0
    calm_ms: float = 0.0


@dataclass(frozen=True)
class Loop:
    """What one answer of the chain showed."""

    positions: int  # tokens that the chain computed for it
    loop_ms: float  # from sending the last of them to having the answer
    drafted: int  # drafted tokens that it judged, or made void
    kept: int  # of these, those that were accepted
    draft_ms: float  # that drafting took since the answer before
    stage_ms: float = 0.0  # that the slowest stage computed
    queue_ms: float = 0.0  # that it waited for others, where it waited longest


class Control(Protocol):
    """Decides how far to go, by what it sees."""

    def plan(self) -> Plan: ...

    def observe(self, loop: Loop) -> None:
        """Learn from a loop. The one that carried the prompt is not shown."""
        ...
