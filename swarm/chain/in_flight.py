"""The windows of one session that wait for their answers: a book without I/O, to which time comes
with every event."""

from collections import deque
from dataclasses import dataclass

from swarm.decoding.decoder import Window
from swarm.util.averages import ewma
from swarm.wire.messages import Result

PROMPT_TIMEOUT_S = 60.0  # before a loop was measured: a full frame of a prompt on a slow chain
# after so many loops, and so long, without an answer, something may hang
HANG_LOOPS, LEAST_HANG_S = 2.0, 0.5
FADE = 0.8  # what older loops still count for how long the next one may take


class NotAsked(ValueError):
    """A result answers no windows that were sent."""


@dataclass(frozen=True)
class Answered:
    """What a result answers.

    Attributes:
        windows: one, or several in a row that a busy peer computed together.
        loop_s: from sending the last of them to the arrival of the result.
    """

    windows: tuple[Window, ...]
    loop_s: float


class InFlight:
    """Windows are booked with `sent` and struck off with `answered`.

    Times are seconds of one clock, the caller's.

    Attributes:
        epoch: of the last window.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._sent: deque[tuple[Window, float]] = deque()  # and when
        self._heard_at = float("-inf")
        self._loop_s: float | None = None  # fading mean, once a loop of decoding was measured

    def sent(self, window: Window, now: float) -> bool:
        """Book a window.

        Return whether it begins a new epoch: all that was sent before is void then.
        """
        self._sent.append((window, now))
        begins, self.epoch = window.epoch > self.epoch, max(window.epoch, self.epoch)
        return begins

    def heard(self, at: float) -> None:
        """Something came from the chain at this time: it gets on."""
        self._heard_at = max(self._heard_at, at)

    def answered(self, result: Result, at: float) -> Answered | None:
        """Strike off the windows that a result answers, which arrived at this time.

        Return None if it is stale.

        Windows of older epochs may have died on their way, and need no answer.

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
        while (
            self._sent and tokens < result.count and self._sent[0][0].first == result.first + tokens
        ):
            window, sent_at = self._sent.popleft()
            windows.append(window)
            tokens += len(window.tokens)
            tail += window.tail
        asked = bool(windows) and windows[-1].epoch == result.epoch
        if not asked or (tokens, tail) != (result.count, result.hidden.tokens):
            raise NotAsked("it answered what was not asked")
        if result.epoch < self.epoch:
            return None
        loop_s = at - sent_at
        if tail == tokens:  # a prompt's loops say nothing of decoding
            self._loop_s = ewma(self._loop_s, loop_s, FADE)
        return Answered(tuple(windows), loop_s)

    def go_on(self, epoch: int) -> None:
        """Nothing that was sent is waited for any more; a newer epoch begins.

        How long loops took is kept, though it was another chain: one that is slower is asked early
        whether it gets on, and left alone while it does, or while it computes.
        """
        self.epoch = epoch
        self._sent.clear()

    def rest(self) -> None:
        """The same, before another text: its prompt may take longer than any loop of the last
        one."""
        self.go_on(self.epoch + 1)
        self._loop_s = None

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        return (
            PROMPT_TIMEOUT_S
            if self._loop_s is None
            else max(HANG_LOOPS * self._loop_s, LEAST_HANG_S)
        )

    def left_s(self, now: float) -> float:
        """How long the next answer may still take; as long as ever while nothing is in flight."""
        oldest = next(
            (sent_at for window, sent_at in self._sent if window.epoch == self.epoch), None
        )
        if oldest is None:
            return self.patience_s
        return max(oldest, self._heard_at) + self.patience_s - now

    @property
    def last_sent(self) -> int:
        """The serial of the last token that was sent in the current epoch; 0 if there was none."""
        return next(
            (w.first + len(w.tokens) - 1 for w, _ in reversed(self._sent) if w.epoch == self.epoch),
            0,
        )
