"""Measures how fast this gateway generates now, and the times of its last generations."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from swarm.outputs import Measured, Piece, RouteStop, Stats, TimeShare
from swarm.routing.chain import Stage
from swarm.terminal.bottleneck import bottleneck

HISTORY_S = 60
RECENT_S = 5  # over which speed is averaged: a loop brings several tokens at once, or none
LAST = 20  # generations that are listed
LOOPS = 16  # of the running generation, over which loop times are averaged


@dataclass(frozen=True)
class LoopStage:
    """A stage of a chain, and its mean times in one loop."""

    peer_id: str
    layers: tuple[int, int]
    compute_ms: float
    queue_ms: float  # that a frame waits for other sessions


@dataclass(frozen=True)
class LoopTimes:
    """The mean times of one generation's loops: its stages, and ``links_ms`` for the rest."""

    loop_ms: float
    links_ms: float
    hops: tuple[LoopStage, ...]


@dataclass(frozen=True)
class Spent:
    """What a generation waited for, and what holds it back: a sentence without a full stop."""

    model: str
    share: TimeShare
    bottleneck: str | None


@dataclass(frozen=True)
class Running:
    """A running generation. ``acceptance`` is None until a token was drafted."""

    model: str
    seconds: float
    tokens: int
    acceptance: float | None


@dataclass(frozen=True)
class Past:
    """A generation that has ended.

    The fields from ``finish_reason`` on are None if it failed or was stopped.
    """

    model: str
    ago_s: float
    seconds: float
    tokens: int
    acceptance: float | None
    peers: int
    finish_reason: str | None = None
    tokens_per_second: float | None = None
    time_to_first_token_ms: float | None = None
    mean_acceptance_length: float | None = None
    loop_ms: float | None = None


@dataclass(frozen=True)
class Speed:
    """The state of a gateway at one time.

    Attributes:
        tokens_per_second: of all generations together, in the last `RECENT_S` seconds.
        acceptance: the share of drafted tokens kept in the last `HISTORY_S` seconds; None if none
            was drafted.
        history: tokens in each of the last `HISTORY_S` seconds, the oldest first.
        loop: of the generation whose peers answered last.
        spent: by the last generation that came to its end; None before the first.
        running: the generations that run.
        last: the generations that ended, the newest first.
    """

    tokens_per_second: float
    acceptance: float | None
    history: tuple[int, ...]
    loop: LoopTimes | None
    spent: Spent | None
    running: tuple[Running, ...]
    last: tuple[Past, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class TokenCounts:
    """Numbers of new tokens, of those that had a draft, and of drafts that were kept."""

    tokens: int = 0
    drafted: int = 0
    kept: int = 0

    def add(self, other: "TokenCounts") -> None:
        self.tokens += other.tokens
        self.drafted += other.drafted
        self.kept += other.kept

    @property
    def acceptance(self) -> float | None:
        return self.kept / self.drafted if self.drafted else None


class Speedometer:
    """Sums up the generations of this gateway. No I/O; times are seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        # the seconds in which any token arrived
        self._seconds: deque[tuple[int, TokenCounts]] = deque(maxlen=HISTORY_S + 1)
        self._running: list[Run] = []
        self._last: deque[tuple[float, Past]] = deque(maxlen=LAST)  # with the time it ended
        self._answered: Run | None = None
        self._spent: Spent | None = None

    def began(self, model: str) -> "Run":
        """Begin a generation. The caller has to call `Run.ended` in any case."""
        run = Run(self, model)
        self._running.append(run)
        return run

    def speed(self) -> Speed:
        """Return the state of the gateway now."""
        now = self.clock()
        seconds = dict(self._seconds)
        minute = TokenCounts()
        history = []
        for second in range(int(now) - HISTORY_S + 1, int(now) + 1):
            counts = seconds.get(second, TokenCounts())
            minute.add(counts)
            history.append(counts.tokens)
        return Speed(
            # without this second, which is not over
            tokens_per_second=sum(history[-RECENT_S - 1 : -1]) / RECENT_S,
            acceptance=minute.acceptance,
            history=tuple(history),
            loop=self._answered.loop() if self._answered else None,
            spent=self._spent,
            running=tuple(
                Running(run.model, now - run.began_at, run.counts.tokens, run.counts.acceptance)
                for run in self._running
            ),
            last=tuple(replace(past, ago_s=now - at) for at, past in reversed(self._last)),
        )

    # Called by runs.

    def add(self, counts: TokenCounts) -> None:
        second = int(self.clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, TokenCounts()))
        self._seconds[-1][1].add(counts)

    def answered(self, run: "Run") -> None:
        self._answered = run

    def end(self, run: "Run") -> None:
        if run in self._running:
            self._running.remove(run)
            self._last.append((self.clock(), run.past()))
            self._spent = run.spent() or self._spent


class Run:
    """One running generation. All methods are cheap, and none raises."""

    def __init__(self, speedometer: Speedometer, model: str) -> None:
        self.model = model
        self.began_at = speedometer.clock()
        self.counts = TokenCounts()
        self._speedometer = speedometer
        self._route: tuple[RouteStop, ...] = ()
        self._answers: deque[Measured] = deque(maxlen=LOOPS)
        self._prompt = True  # the only answer so far is that to the prompt, which takes longer
        self._stats: Stats | None = None

    def piece(self, piece: Piece) -> None:
        """Count one more token."""
        kept = piece.origin in ("drafted", "relaxed")
        counts = TokenCounts(tokens=1, drafted=piece.drafted_id is not None, kept=kept)
        self.counts.add(counts)
        self._speedometer.add(counts)

    def route(self, route: Sequence[RouteStop]) -> None:
        """Note the current chain, changed or not."""
        self._route = tuple(route)

    def measured(self, answer: Measured | None) -> None:
        """Note the times of the newest answer; the same answer may be given again."""
        if answer is None or (self._answers and answer is self._answers[-1]):
            return
        if self._answers and self._prompt:
            self._answers.clear()
            self._prompt = False
        self._answers.append(answer)
        self._speedometer.answered(self)

    def finished(self, stats: Stats) -> None:
        """Note that it came to its end; call `ended`, too."""
        self._stats = stats

    def ended(self) -> None:
        """End it: it finished, failed or was stopped. May be called twice."""
        self._speedometer.end(self)

    # Called by the speedometer.

    def loop(self) -> LoopTimes | None:
        """Return the mean loop times, as far as they were measured on the current chain."""
        route = tuple(Stage(stop.peer_id, *stop.layers) for stop in self._route)
        answers = [each for each in self._answers if each.stages == route]
        if not route or not answers:
            return None
        hops = []
        for stage, stop in enumerate(self._route):
            compute_ms = fmean(each.compute_ms[stage] for each in answers)
            queue_ms = fmean(
                each.queue_ms[stage] if stage < len(each.queue_ms) else 0.0 for each in answers
            )
            hops.append(LoopStage(stop.peer_id, stop.layers, compute_ms, queue_ms))
        loop_ms = fmean(each.loop_ms for each in answers)
        links_ms = loop_ms - sum(hop.compute_ms + hop.queue_ms for hop in hops)
        return LoopTimes(loop_ms, max(0.0, links_ms), tuple(hops))

    def spent(self) -> Spent | None:
        """Return what it waited for; None if it did not come to its end."""
        stats = self._stats
        if stats is None or stats.share is None:
            return None
        return Spent(self.model, stats.share, bottleneck(stats))

    def past(self) -> Past:
        """Return its record, when it has just ended."""
        past = Past(
            self.model,
            ago_s=0.0,
            seconds=self._speedometer.clock() - self.began_at,
            tokens=self.counts.tokens,
            acceptance=self.counts.acceptance,
            peers=len(self._route),
        )
        if self._stats is None:
            return past
        return replace(
            past,
            finish_reason=self._stats.finish_reason,
            tokens_per_second=self._stats.tokens_per_second,
            time_to_first_token_ms=self._stats.time_to_first_token_ms,
            mean_acceptance_length=self._stats.mean_acceptance_length,
            loop_ms=self._stats.loop_ms,
        )
