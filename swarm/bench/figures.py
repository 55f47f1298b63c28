"""From comparisons to figures: of every way, the median over the prompts of what each prompt
showed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from swarm.bench.compare import Comparison
from swarm.bench.ways import PLAIN, Way
from swarm.outputs import Stats


@dataclass(frozen=True)
class Figures:
    """One way on one chain.

    Ratios are taken prompt by prompt, then the median; rates are per new token.
    """

    way: str
    speedup: float  # over plain decoding
    speedup_range: tuple[float, float]  # of the prompts
    bound_share: float | None  # of the most that speculation could reach
    tokens_per_second: float
    time_to_first_token_ms: float
    loop_ms: float
    stages_ms: float  # of a loop, computed by all stages together
    waits: float  # times that the text waited for a whole loop
    frames: float  # that the client sent
    bytes_sent: float
    bytes_received: float
    positions: float  # that the peers computed
    wasted: float  # of these, for nothing
    in_flight: float  # frames, on average (not per token)
    alpha: float | None  # share of the draft's first choices that were kept, of those judged
    branches: float  # tokens that a second or third choice brought
    identical: bool | None  # with plain decoding, all prompts; None where the way promises none

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(comparisons: Sequence[Comparison], way: Way) -> Figures:
    """Sum up at least one comparison that holds ``way`` and the plain one."""
    stats = [comparison.ways[way.name].stats for comparison in comparisons]
    speedups = [comparison.speedup(way.name) for comparison in comparisons]
    shares = [
        share
        for comparison in comparisons
        if (share := comparison.bound_share(way.name)) is not None
    ]

    def mid(of: Callable[[Stats], float]) -> float:
        return median(map(of, stats))

    return Figures(
        way=way.name,
        speedup=median(speedups),
        speedup_range=(min(speedups), max(speedups)),
        bound_share=median(shares) if shares else None,
        tokens_per_second=mid(lambda s: s.tokens_per_second),
        time_to_first_token_ms=mid(lambda s: s.time_to_first_token_ms),
        loop_ms=mid(lambda s: s.loop_ms),
        stages_ms=mid(lambda s: sum(s.stage_compute_ms)),
        waits=mid(lambda s: s.waits / s.new_tokens),
        frames=mid(lambda s: s.frames / s.new_tokens),
        bytes_sent=mid(lambda s: s.bytes_sent / s.new_tokens),
        bytes_received=mid(lambda s: s.bytes_received / s.new_tokens),
        positions=mid(lambda s: s.positions_per_token or 0.0),
        wasted=mid(lambda s: s.wasted_tokens / s.new_tokens),
        in_flight=mid(lambda s: s.in_flight_mean),
        alpha=_alpha(stats),
        branches=mid(lambda s: s.branch_tokens / s.new_tokens),
        identical=all(comparison.agrees(way.name) for comparison in comparisons)
        if way.exact
        else None,
    )


def all_figures(comparisons: Sequence[Comparison], ways: Sequence[Way]) -> list[Figures]:
    """In the order of ``ways``."""
    return [figures(comparisons, way) for way in ways]


def best(rows: Sequence[Figures], ways: Sequence[Way]) -> Figures:
    """The fastest of the ways that wait for every window: what streaming has to beat."""
    waiting = {way.name for way in ways if way.waits and way is not PLAIN}
    return max((row for row in rows if row.way in waiting), key=lambda row: row.speedup)


def _alpha(stats: Sequence[Stats]) -> float | None:
    judged = sum(s.accepted_tokens + s.rejections for s in stats)
    return sum(s.accepted_tokens for s in stats) / judged if judged else None
