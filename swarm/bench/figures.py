"""From comparisons to figures: for every way, the median over the prompts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from swarm.bench.compare import Comparison
from swarm.bench.ways import PLAIN, Way
from swarm.decoding.acceptance import SourceAcceptance, together
from swarm.outputs import Stats, TimeShare


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
        judge_ms: until an answer is judged; None without answers.
        draft_ms: until a drafted line is one token longer; None if nothing was drafted.
        share: of the time of all texts, by what they waited for.
        acceptance: of the drafts of all texts, by source and lag.
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
    judge_ms: float | None
    draft_ms: float | None
    share: TimeShare | None
    acceptance: tuple[SourceAcceptance, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures_from(plain: Mapping[str, Any]) -> WayFigures:
    """Return the figures that `WayFigures.as_dict` has made plain data of."""
    share = plain["share"]
    return WayFigures(
        **{
            **plain,
            "speedup_range": tuple(plain["speedup_range"]),
            "share": None if share is None else TimeShare(**share),
            "acceptance": tuple(
                SourceAcceptance(each["source"], tuple(each["judged"]), tuple(each["accepted"]))
                for each in plain["acceptance"]
            ),
        }
    )


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
        judge_ms=_median(s.judge_ms for s in stats),
        draft_ms=_median(s.draft_ms_per_token for s in stats),
        share=_share(stats),
        acceptance=together(s.acceptance_by_source for s in stats),
    )


def all_figures(comparisons: Sequence[Comparison], ways: Sequence[Way]) -> list[WayFigures]:
    """Sum up all ways, in the order of ``ways``."""
    return [figures(comparisons, way) for way in ways]


def best(rows: Sequence[WayFigures], ways: Sequence[Way]) -> WayFigures:
    """Return the fastest of the ways that wait for every window: the baseline of streaming."""
    waiting = {way.name for way in ways if way.waits and way is not PLAIN}
    return max((row for row in rows if row.way in waiting), key=lambda row: row.speedup)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _share(stats: Sequence[Stats]) -> TimeShare | None:
    """Return the shares of the time of all texts together. They add up to 1, as those of one do."""
    known = [(s.share, s.seconds) for s in stats if s.share is not None]
    whole = sum(seconds for _, seconds in known)
    if not whole:
        return None
    return TimeShare(
        **{
            part.name: sum(getattr(share, part.name) * seconds for share, seconds in known) / whole
            for part in fields(TimeShare)
        }
    )


def _alpha(stats: Sequence[Stats]) -> float | None:
    judged = sum(s.accepted_tokens + s.rejections for s in stats)
    return sum(s.accepted_tokens for s in stats) / judged if judged else None
