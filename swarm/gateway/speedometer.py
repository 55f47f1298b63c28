"""How fast this gateway generates now, and what its last generations took: from the pieces that
pass."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from swarm.outputs import Measured, Piece, RouteStop, Stats
from swarm.routing.chain import Stage

HISTORY_S = 60
RECENT_S = 5  # over which a speed is told: a loop brings several tokens at once, or none
LAST = 20  # generations that are told of
LOOPS = 16  # of the running generation, over which a loop is averaged


@dataclass(frozen=True)
class Hop:
    """A stage of a chain, and what it takes a loop on average."""

    peer_id: str
    layers: tuple[int, int]
    compute_ms: float
    queue_ms: float  # that it waits for other sessions


@dataclass(frozen=True)
class Loop:
    """What a loop of one generation takes on average: its hops, and ``links_ms``, which is all the
    rest."""

    loop_ms: float
    links_ms: float
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Running:
    """A generation that goes on. ``acceptance`` is None until something was drafted."""

    model: str
    seconds: float
    tokens: int
    acceptance: float | None


@dataclass(frozen=True)
class Past:
    """A generation that is over.

    The figures from ``finish_reason`` on are None if it failed or was stopped.
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
    """Everything now.

    Attributes:
        tokens_per_second: of all generations together, in the last `RECENT_S` seconds.
        acceptance: the share of drafted tokens kept in the last `HISTORY_S` seconds; None if none
            was drafted.
        history: tokens in each of the last `HISTORY_S` seconds, the oldest first.
        loop: of the generation that was answered last.
        last: the generations that ended, the newest first.
    """

    tokens_per_second: float
    acceptance: float | None
    history: tuple[int, ...]
    loop: Loop | None
    running: tuple[Running, ...]
    last: tuple[Past, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Tally:
    """Tokens, and what became of the drafts at their places."""

    tokens: int = 0
    drafted: int = 0
    kept: int = 0

    def add(self, other: "Tally") -> None:
        self.tokens += other.tokens
        self.drafted += other.drafted
        self.kept += other.kept

    @property
    def acceptance(self) -> float | None:
        return self.kept / self.drafted if self.drafted else None


class Speedometer:
    """Adds up what all generations of this gateway say. No I/O; times are seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        # those in which anything came
        self._seconds: deque[tuple[int, Tally]] = deque(maxlen=HISTORY_S + 1)
        self._running: list[Run] = []
        self._last: deque[tuple[float, Past]] = deque(maxlen=LAST)  # with the time it ended
        self._answered: Run | None = None

    def began(self, model: str) -> "Run":
        """A generation begins. Call `Run.ended` in the end, whatever happens."""
        run = Run(self, model)
        self._running.append(run)
        return run

    def speed(self) -> Speed:
        now = self.clock()
        seconds = dict(self._seconds)
        minute = Tally()
        history = []
        for second in range(int(now) - HISTORY_S + 1, int(now) + 1):
            tally = seconds.get(second, Tally())
            minute.add(tally)
            history.append(tally.tokens)
        return Speed(
            # this second is not over
            tokens_per_second=sum(history[-RECENT_S - 1 : -1]) / RECENT_S,
            acceptance=minute.acceptance,
            history=tuple(history),
            loop=self._answered.loop() if self._answered else None,
            running=tuple(
                Running(run.model, now - run.began_at, run.tally.tokens, run.tally.acceptance)
                for run in self._running
            ),
            last=tuple(replace(past, ago_s=now - at) for at, past in reversed(self._last)),
        )

    # What runs tell.

    def add(self, tally: Tally) -> None:
        second = int(self.clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Tally()))
        self._seconds[-1][1].add(tally)

    def answered(self, run: "Run") -> None:
        self._answered = run

    def end(self, run: "Run") -> None:
        if run in self._running:
            self._running.remove(run)
            self._last.append((self.clock(), run.past()))


class Run:
    """One generation, as it goes. All methods are cheap, and none raises."""

    def __init__(self, speedometer: Speedometer, model: str) -> None:
        self.model, self.began_at, self.tally = model, speedometer.clock(), Tally()
        self._speedometer = speedometer
        self._route: tuple[RouteStop, ...] = ()
        self._answers: deque[Measured] = deque(maxlen=LOOPS)
        self._prompt = True  # no answer came but the prompt's, which takes longer
        self._stats: Stats | None = None

    def piece(self, piece: Piece) -> None:
        """One more token."""
        tally = Tally(1, piece.drafted_id is not None, piece.origin in ("drafted", "relaxed"))
        self.tally.add(tally)
        self._speedometer.add(tally)

    def route(self, route: Sequence[RouteStop]) -> None:
        """The chain as it is now; may be told again at any time."""
        self._route = tuple(route)

    def measured(self, answer: Measured | None) -> None:
        """What the newest answer took; the same one may be told again."""
        if answer is None or (self._answers and answer is self._answers[-1]):
            return
        if self._answers and self._prompt:
            self._answers.clear()
            self._prompt = False
        self._answers.append(answer)
        self._speedometer.answered(self)

    def finished(self, stats: Stats) -> None:
        """It came to its end; `ended` is still to be called."""
        self._stats = stats

    def ended(self) -> None:
        """It is over: finished, failed or stopped. May be called twice."""
        self._speedometer.end(self)

    # What the speedometer asks.

    def loop(self) -> Loop | None:
        """What a loop takes, as far as it was measured on the chain as it is now."""
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
            hops.append(Hop(stop.peer_id, stop.layers, compute_ms, queue_ms))
        loop_ms = fmean(each.loop_ms for each in answers)
        links_ms = loop_ms - sum(hop.compute_ms + hop.queue_ms for hop in hops)
        return Loop(loop_ms, max(0.0, links_ms), tuple(hops))

    def past(self) -> Past:
        seconds = self._speedometer.clock() - self.began_at
        past = Past(
            self.model, 0.0, seconds, self.tally.tokens, self.tally.acceptance, len(self._route)
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
