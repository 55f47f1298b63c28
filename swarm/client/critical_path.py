"""Where the time of a text goes: the critical path from its first frame to its last token.

Much happens at once, so the times that each part was busy do not add up. What the text waited for
does: every event has one cause, the latest event that it could not do without, and the time between
the two has one name. Walked back from the last token, these times make up the whole text's::

    start ──> sent ══════════> answered ──> judged ──> sent ══════════> answered ──> judged
              │   links, stages           judging       (the text went another way)
              └─> drafted ──> sent ══════════> answered ──> judged
               drafting   pace

So a peer that computes while the client drafts is not counted, unless the text waited for it. There
is no walk back: each event carries the times that led to it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from swarm.outputs import Measured, TimeShare


@dataclass(frozen=True)
class _Moment:
    """An event, and the times that led to it, in seconds; they add up to those since the start.

    Attributes:
        at: by the clock.
        waiting: for anything that has no other name: its turn on the event loop, the reader of the
            text, a repair of the chain, other sessions at a peer, the least pause between frames.
    """

    at: float
    links: float = 0.0
    stages: float = 0.0
    judging: float = 0.0
    drafting: float = 0.0
    waiting: float = 0.0

    def then(
        self,
        at: float,
        *,
        links: float = 0.0,
        stages: float = 0.0,
        judging: float = 0.0,
        drafting: float = 0.0,
    ) -> "_Moment":
        """Return a later event that this one led to; the time that has no name was waiting."""
        named = links + stages + judging + drafting
        return _Moment(
            at,
            self.links + links,
            self.stages + stages,
            self.judging + judging,
            self.drafting + drafting,
            self.waiting + (at - self.at) - named,
        )


class CriticalPath:
    """Follows one text. No I/O; times are seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.start(0.0)

    def start(self, at: float) -> None:
        """Begin the text."""
        self._judged = _Moment(at)
        self._asked = self._judged
        self._drafted = self._judged
        self._may_send = self._judged  # when the pace lets the next frame go
        self._in_flight: dict[int, _Moment] = {}  # frames by their first serial, oldest first
        self._answered: _Moment | None = None  # what is being judged
        self._from = self._judged.at  # when judging that began

    def asked(self) -> None:
        """The drafter begins to draft."""
        self._asked = self._latest(self._drafted, self._judged).then(self._clock())

    def drafted(self, seconds: float) -> None:
        """The drafter ends, and computed for ``seconds`` of the time since it was asked.

        If the text has left meanwhile the line that was drafted, all that it waited for since was
        for the drafter to be free.
        """
        now = self._clock()
        self._drafted = self._asked.then(now, drafting=min(seconds, now - self._asked.at))

    def sent(self, first: int, pace_s: float, pause_s: float) -> None:
        """A frame is sent.

        Args:
            first: its first serial.
            pace_s: what the slowest stage computes for a frame, which the next frame waits for.
            pause_s: the least time until the next frame; above ``pace_s`` to spare the peers.
        """
        sent = self._latest(self._judged, self._drafted, self._may_send).then(self._clock())
        self._in_flight[first] = sent
        self._may_send = sent.then(sent.at + pause_s, stages=min(pace_s, pause_s))

    def answered(self, first: int, at: float, measured: Measured) -> None:
        """The client takes an answer that arrived at ``at``.

        Args:
            first: the first serial of the last frame that it answers.
        """
        self._from = self._clock()
        frame = self._judged
        for serial in list(self._in_flight):
            if serial > first:
                break
            frame = self._in_flight.pop(serial)
        at = min(max(at, frame.at), self._from)
        took = at - frame.at
        arrived = frame.then(at, **_split(took, measured))
        # until the answers before it were judged, and their reader came back for more
        late = min(max(self._judged.at, at), self._from)
        self._answered = arrived.then(late, judging=late - at).then(self._from)

    def judged(self, left: bool) -> float:
        """The answer was judged; return the seconds since the client took it.

        Args:
            left: the text has left what was sent. The next frame only waits for this decision, and
                all other frames are void.
        """
        if self._answered is None:
            return 0.0
        now = self._clock()
        self._judged = self._answered.then(now, judging=now - self._from)
        self._answered = None
        if left:
            self._asked = self._drafted = self._may_send = self._judged
            self._in_flight.clear()
        return now - self._from

    def share(self) -> TimeShare | None:
        """Return the parts of the time up to the last decision; None if there was none."""
        last = self._judged
        parts = (last.links, last.stages, last.judging, last.drafting, last.waiting)
        whole = sum(parts)
        return TimeShare(*(part / whole for part in parts)) if whole > 0 else None

    def _latest(self, *causes: _Moment) -> _Moment:
        """Return the last of some events that have happened; the text's last decision has."""
        now = self._clock()
        return max((each for each in causes if each.at <= now), key=lambda each: each.at)


def _split(took_s: float, measured: Measured) -> dict[str, float]:
    """Return the parts of a loop that links and stages took; the rest is for other sessions.

    The times are the peers' own, and count for no more than the loop that the client has measured.
    """
    computed_ms = sum(measured.compute_ms)
    told_ms = computed_ms + sum(measured.queue_ms)
    whole_ms = max(measured.loop_ms, told_ms)
    if not whole_ms:
        return {"links": took_s}
    return {
        "links": took_s * (whole_ms - told_ms) / whole_ms,
        "stages": took_s * computed_ms / whole_ms,
    }
