"""From comparisons to figures: for every way, the median over the prompts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from swarm.bench.compare import Comparison
from swarm.bench.ways import PLAIN, Way
from swarm.outputs import Stats


@dataclass(frozen=True)
class WayFigures:
    """One way on one chain.

    Ratios are taken prompt by prompt, then the median. Rates (from `waits` to `wasted`, and
    `branches`) are per new token.

    Attributes:
        speedup: over plain decoding.
        speedup_range: the least and the greatest of the prompts.
        bound_share: speed over the bound of speculation; None if nothing was drafted.
        stages_ms: compute of all stages in a loop.
        waits: times that the text waited for a whole loop.
        frames: sent by the client.
        bytes_sent, bytes_received: by the client.
        positions: computed by the peers.
        wasted: positions that did not become part of the text.
        in_flight: mean frames in flight.
        alpha: acceptance rate of the draft's first choices; None if none was judged.
        branches: tokens that the draft's second or third choices brought.
        identical: whether all texts are those of plain decoding; None if the way does not promise
            it.
    """

    way: str
    speedup: float
    speedup_range: tuple[float, float]
    bound_share: float | None
    tokens_per_second: float
    time_to_first_token_ms: float
    loop_ms: float
    stages_ms: float
    waits: float
    frames: float
    bytes_sent: float
    bytes_received: float
    positions: float
    wasted: float
    in_flight: float
    alpha: float | None
    branches: float
    identical: bool | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(comparisons: Sequence[Comparison], way: Way) -> WayFigures:
    """Sum up one comparison or more, which have ``way`` and the plain one."""
    stats = [comparison.ways[way.name].stats for comparison in comparisons]
    speedups = [comparison.speedup(way.name) for comparison in comparisons]
    all_shares = [comparison.bound_share(way.name) for comparison in comparisons]
    shares = [share for share in all_shares if share is not None]
    same = all(comparison.agrees(way.name) for comparison in comparisons)

    def mid(of: Callable[[Stats], float]) -> float:
        return median(map(of, stats))

    return WayFigures(
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
        identical=same if way.exact else None,
    )


def all_figures(comparisons: Sequence[Comparison], ways: Sequence[Way]) -> list[WayFigures]:
    """Sum up all ways, in the order of ``ways``."""
    return [figures(comparisons, way) for way in ways]


def best(rows: Sequence[WayFigures], ways: Sequence[Way]) -> WayFigures:
    """Return the fastest of the ways that wait for every window: the baseline of streaming."""
    waiting = {way.name for way in ways if way.waits and way is not PLAIN}
    return max((row for row in rows if row.way in waiting), key=lambda row: row.speedup)


def _alpha(stats: Sequence[Stats]) -> float | None:
    judged = sum(s.accepted_tokens + s.rejections for s in stats)
    return sum(s.accepted_tokens for s in stats) / judged if judged else None
