"""Measurements of a generation while it runs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swarm.client.critical_path import CriticalPath
from swarm.decoding.bound import time_bound_ms
from swarm.decoding.counts import Counts
from swarm.decoding.decoder import FinishReason
from swarm.decoding.policy import PlainReason
from swarm.outputs import (
    ONE_CORE,
    Compute,
    DrafterKind,
    Failover,
    Measured,
    RouteStop,
    StageTimes,
    Stats,
)
from swarm.routing.chain import Stage


@dataclass(frozen=True)
class TextFacts:
    """The part of the statistics of a text that is not measured.

    Attributes:
        bytes_sent: by the client.
        seed: of the sampling noise; None for greedy decoding.
        exact: whether the rule verifies exactly.
        draft_error: of a drafter that failed.
        plain_reason: why most of the text was decoded plainly.
        route: the stages to show; if it is empty, the places of the last loop.
    """

    prompt_tokens: int
    bytes_sent: int
    bytes_received: int
    seed: int | None
    exact: bool
    rule: str
    draft_error: str | None
    finish_reason: FinishReason
    failovers: tuple[Failover, ...] = ()
    cached_tokens: int = 0
    route: Sequence[RouteStop] = ()
    drafter: DrafterKind | None = None
    plain_reason: PlainReason | None = None
    compute: Compute = ONE_CORE


@dataclass
class Meter:
    """Takes measurements while a generation runs; `Meter.stats` sums up.

    Times are seconds of `clock`.

    Attributes:
        path: what the text waited for; it is told of every event.
    """

    clock: Callable[[], float] = time.perf_counter
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    new_tokens: int = 0
    drafts: list[tuple[int, float]] = field(default_factory=list)  # tokens of a line, seconds
    loops: list[Measured] = field(default_factory=list)
    judge_s: list[float] = field(default_factory=list)
    path: CriticalPath = field(init=False)

    def __post_init__(self) -> None:
        self.path = CriticalPath(self.clock)

    def start(self) -> None:
        self.started = self.first_token = self.last_token = self.clock()
        self.path.start(self.started)

    def drafted(self, tokens: int, seconds: float) -> None:
        """Note that a line became longer by ``tokens``, and perhaps others with it.

        The whole time counts, not a share of it: each token waits for the one before it, so that
        this is the pace of the text at best (tau). The first call reads the prompt, and does not
        count in the mean if there are others.
        """
        self.path.drafted(seconds)
        self.drafts.append((tokens, seconds))

    def loop(self, measured: Measured, tokens: int) -> None:
        """Note an answer that commits ``tokens``."""
        self.last_token = self.clock()
        if not self.new_tokens:
            self.first_token = self.last_token
        self.new_tokens += tokens
        self.loops.append(measured)

    def judged(self, left: bool) -> None:
        """Note that the answer that was last taken is judged; see `CriticalPath.judged`."""
        self.judge_s.append(self.path.judged(left))

    @property
    def stages(self) -> dict[Stage, StageTimes]:
        """Each peer's mean times in the loops in which it took part, whatever the chain was.

        The prompt's loop does not count: it says nothing about decoding.
        """
        return {
            stage: times
            for stage, times in _by_stage(self.loops[1:]).items()
            if isinstance(stage, Stage)
        }

    def stats(self, counts: Counts, facts: TextFacts) -> Stats:
        """Return all statistics, at the end.

        The first loop carries the prompt: it does not count in the means if there are others.
        """
        seconds = self.last_token - self.started
        new_tokens = self.new_tokens
        loops_ms = [loop.loop_ms for loop in self.loops[1:] or self.loops]
        stages = self._stages_of(facts.route)
        return Stats(
            prompt_tokens=facts.prompt_tokens,
            cached_tokens=facts.cached_tokens,
            new_tokens=new_tokens,
            seconds=seconds,
            tokens_per_second=new_tokens / seconds if seconds else 0.0,
            time_to_first_token_ms=(self.first_token - self.started) * 1e3,
            loops=counts.loops,
            loop_ms=_mean(loops_ms),
            least_loop_ms=min(loops_ms, default=0.0),
            stage_compute_ms=tuple(times.compute_ms for times in stages),
            stage_queue_ms=tuple(times.queue_ms for times in stages),
            drafted_tokens=counts.drafted,
            accepted_tokens=counts.accepted,
            rejections=counts.rejected,
            branch_tokens=counts.branched,
            key_tokens=counts.key,
            relaxed_tokens=counts.relaxed,
            deficit_nats=counts.deficit_nats,
            draft_acceptance_rate=counts.accepted / counts.drafted if counts.drafted else None,
            mean_acceptance_length=new_tokens / counts.loops if counts.loops else None,
            acceptance_by_position=tuple(
                kept / judged for kept, judged in zip(counts.kept_at, counts.judged_at, strict=True)
            ),
            acceptance_histogram=tuple(counts.histogram),
            draft_ms_per_token=self._draft_ms,
            waits=counts.waits,
            frames=counts.frames,
            in_flight_mean=counts.in_flight / counts.frames if counts.frames else 0.0,
            in_flight_max=counts.most_in_flight,
            flushes=counts.flushes,
            wasted_tokens=counts.sent - counts.held,
            positions_per_token=counts.sent / new_tokens if new_tokens else None,
            bound_share=self._bound_share(counts),
            bytes_sent=facts.bytes_sent,
            bytes_received=facts.bytes_received,
            verification="exact" if facts.exact else "relaxed",
            rule=facts.rule,
            draft_error=facts.draft_error,
            failovers=facts.failovers,
            seed=facts.seed,
            finish_reason=facts.finish_reason,
            drafter=facts.drafter,
            plain_reason=facts.plain_reason,
            compute=facts.compute,
            share=self.path.share(),
            judge_ms=_mean(self.judge_s[1:] or self.judge_s) * 1e3 if self.judge_s else None,
            acceptance_by_source=counts.acceptance.by_source,
        )

    @property
    def _draft_ms(self) -> float | None:
        drafts = self.drafts[1:] or self.drafts
        tokens = sum(tokens for tokens, _ in drafts)
        return sum(seconds for _, seconds in drafts) * 1e3 / tokens if tokens else None

    def _bound_share(self, counts: Counts) -> float | None:
        taken_ms = (self.last_token - self.started) * 1e3
        loops = self.loops[1:]
        if not counts.drafted or not loops or not taken_ms:
            return None
        stage_ms = _mean([max(loop.compute_ms, default=0.0) / loop.positions for loop in loops])
        misses = counts.rejected - counts.branched
        token_ms = max(self._draft_ms or 0.0, stage_ms)
        return (
            time_bound_ms(self.new_tokens, misses, min(loop.loop_ms for loop in loops), token_ms)
            / taken_ms
        )

    def _stages_of(self, route: Sequence[RouteStop]) -> list[StageTimes]:
        loops = self.loops[1:] or self.loops
        asked: Sequence[Stage | int] = [Stage(stop.peer_id, *stop.layers) for stop in route]
        if not asked and loops:
            asked = _places(loops[-1])
        prompt, others = _by_stage(self.loops[:1]), _by_stage(self.loops[1:])
        return [others.get(stage) or prompt.get(stage) or StageTimes(0.0, 0.0) for stage in asked]


def _places(loop: Measured) -> Sequence[Stage | int]:
    """Return the stages of a loop; if they are unknown, their places in the chain."""
    return loop.stages or range(len(loop.compute_ms))


def _by_stage(loops: Sequence[Measured]) -> dict[Stage | int, StageTimes]:
    """Return the mean times of each stage over the loops in which it took part."""
    taken: dict[Stage | int, list[tuple[float, float]]] = {}
    for loop in loops:
        queue_ms = (
            loop.queue_ms
            if len(loop.queue_ms) == len(loop.compute_ms)
            else (0.0,) * len(loop.compute_ms)
        )
        for stage, *times in zip(_places(loop), loop.compute_ms, queue_ms, strict=True):
            taken.setdefault(stage, []).append((times[0], times[1]))
    return {
        stage: StageTimes(
            _mean([compute for compute, _ in each]), _mean([queue for _, queue in each])
        )
        for stage, each in taken.items()
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
