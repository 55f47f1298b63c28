"""Answers that came while replies of another kind were waited for."""

from collections import deque

from swarm.chain.events import Received
from swarm.wire.messages import Result

MOST = 256  # answers
OVERHEAD_BYTES = 256  # of an answer beside its hidden states or candidates


class SetAside:
    """Answers in the order in which they came. If there are too many, the oldest are dropped.

    Args:
        most_bytes: of all of them.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._events: deque[tuple[Received, int]] = deque()
        self._nbytes = 0

    def put(self, event: Received, result: Result) -> None:
        """Add an answer."""
        nbytes = OVERHEAD_BYTES + _nbytes(result)
        self._events.append((event, nbytes))
        self._nbytes += nbytes
        while len(self._events) > MOST or self._nbytes > self.most_bytes:
            self._nbytes -= self._events.popleft()[1]

    def take(self) -> Received | None:
        """Return the oldest answer, and forget it; None without one."""
        if not self._events:
            return None
        event, nbytes = self._events.popleft()
        self._nbytes -= nbytes
        return event

    def clear(self) -> None:
        """Forget all."""
        self._events.clear()
        self._nbytes = 0


def _nbytes(result: Result) -> int:
    """Return the bytes of what an answer carries."""
    hidden = 0 if result.hidden is None else len(result.hidden.data)
    return hidden + (0 if result.candidates is None else result.candidates.nbytes)
