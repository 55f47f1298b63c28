"""The windows of one session that wait for their answers: a book without I/O, to which time comes
with every event."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.decoding.windows import Window
from swarm.outputs import Measured
from swarm.routing.chain import Stage
from swarm.util.averages import ewma
from swarm.wire.messages import Result

PROMPT_TIMEOUT_S = 60.0  # before a loop was measured: a full frame of a prompt on a slow chain
# without an answer for this many loops, and for this long, the chain may hang
HANG_LOOPS = 2.0
LEAST_HANG_S = 0.5
FADE = 0.8  # the weight of all older loops in the estimate of the next one


class NotAsked(ValueError):
    """A result answers no windows that were sent."""


@dataclass(frozen=True)
class Matched:
    """The windows that a result answers.

    Attributes:
        windows: one, or several in a row that a busy peer computed together.
        loop_s: from sending the last of them to the arrival of the result.
    """

    windows: tuple[Window, ...]
    loop_s: float

    def measured(self, result: Result, stages: Sequence[Stage]) -> Measured:
        """Return what the result took; times are credited to the peers of the chain only if every
        one of them has told its own."""
        told = tuple(stages) if len(result.compute_ms) == len(stages) else ()
        return Measured(
            self.loop_s * 1e3, result.compute_ms, result.queue_ms, told, positions=result.count
        )


class InFlight:
    """Windows are booked with `sent` and struck off with `answered`.

    Times are seconds of one clock, the caller's.

    Attributes:
        epoch: of the last window.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._sent: deque[tuple[Window, float]] = deque()  # and when
        self._progress_at = float("-inf")
        self._loop_s: float | None = None  # fading mean, once a loop of decoding was measured

    def sent(self, window: Window, now: float) -> bool:
        """Book a window.

        Return whether it begins a new epoch: all that was sent before is void then.
        """
        begins = window.epoch > self.epoch
        self._sent.append((window, now))
        self.epoch = max(window.epoch, self.epoch)
        return begins

    def progressed(self, at: float) -> None:
        """Note that the chain made progress at this time."""
        self._progress_at = max(self._progress_at, at)

    def answered(self, result: Result, at: float) -> Matched | None:
        """Strike off the windows that a result answers, which arrived at this time.

        Return None if it is stale. Windows of older epochs may have died on their way, and need no
        answer.

        Raises:
            NotAsked: if it answers nothing that was sent.
        """
        if result.epoch < self.epoch and (not self._sent or result.epoch < self._sent[0][0].epoch):
            return None
        while self._sent and self._sent[0][0].epoch < result.epoch:
            self._sent.popleft()
        windows: list[Window] = []
        tokens = tail = 0
        sent_at = at
        # several windows may be answered as one: those whose tokens follow each other without a gap
        while (
            self._sent and tokens < result.count and self._sent[0][0].first == result.first + tokens
        ):
            window, sent_at = self._sent.popleft()
            windows.append(window)
            tokens += len(window.tokens)
            tail += window.tail
        asked = bool(windows) and windows[-1].epoch == result.epoch
        if not asked or (tokens, tail) != (result.count, result.tail):
            raise NotAsked("it answered what was not asked")
        if result.epoch < self.epoch:
            return None
        loop_s = at - sent_at
        # a prompt's loops say nothing of decoding
        if tail == tokens and not any(window.features for window in windows):
            self._loop_s = ewma(self._loop_s, loop_s, FADE)
        return Matched(tuple(windows), loop_s)

    def go_on(self, epoch: int) -> None:
        """Begin a newer epoch; nothing that was sent is waited for any more.

        The loops of the old chain stay measured: a slower chain is asked early whether it makes
        progress, and left alone while it does.
        """
        self.epoch = epoch
        self._sent.clear()

    def rest(self) -> None:
        """Begin a newer epoch for another text, whose prompt may take longer than any loop of the
        last one."""
        self.go_on(self.epoch + 1)
        self._loop_s = None

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        if self._loop_s is None:
            return PROMPT_TIMEOUT_S
        return max(HANG_LOOPS * self._loop_s, LEAST_HANG_S)

    @property
    def deadline(self) -> float | None:
        """When the next answer is overdue; None while nothing is in flight."""
        oldest = next(
            (sent_at for window, sent_at in self._sent if window.epoch == self.epoch), None
        )
        return None if oldest is None else max(oldest, self._progress_at) + self.patience_s

    @property
    def last_sent(self) -> int:
        """The serial of the last token sent in this epoch; 0 if there was none."""
        return next(
            (w.first + len(w.tokens) - 1 for w, _ in reversed(self._sent) if w.epoch == self.epoch),
            0,
        )
