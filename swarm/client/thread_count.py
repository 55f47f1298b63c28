"""How many threads a kind of work takes, chosen by what it took before.

On an idle computer, two threads multiply nearly twice as fast as one. On a busy one they may take
many times as long: torch's threads wait for each other after every product, and each time one of
them has to get a core first. What others do there changes, so it is measured again and again.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median

TRIES = 3  # works that tell how fast a number is
HOPELESS = 1.5  # a number that takes this many times as long in one work is not tried further
RETRY_WORKS = 64  # after which the other numbers are tried again; twice as many the next time
MAX_RETRY_WORKS = 1024


class ThreadCount:
    """Chooses for works that are alike.

    Args:
        counts: numbers of threads to choose from; the first one is tried first.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._took_s = {count: deque[float](maxlen=TRIES) for count in counts}
        self._untried = list(self._took_s)
        self._retry_after = RETRY_WORKS
        self._works = 0  # since all numbers were known

    def next(self) -> int:
        """Return the number for the next work."""
        return self._untried[0] if self._untried else self._best

    def note(self, count: int, seconds: float) -> None:
        """Learn what a work took with ``count`` threads."""
        took_s = self._took_s.get(count)
        if took_s is None:
            return
        took_s.append(seconds)
        if self._untried:
            self._try_on(count)
            return
        self._works += 1
        if self._works >= self._retry_after and len(self._took_s) > 1:
            best = self._best
            self._untried = [other for other in self._took_s if other != best]
            for other in self._untried:
                self._took_s[other].clear()
            self._works = 0
            self._retry_after = min(2 * self._retry_after, MAX_RETRY_WORKS)

    def _try_on(self, count: int) -> None:
        if count != self._untried[0]:
            return
        took_s = self._took_s[count]
        others = [median(each) for other, each in self._took_s.items() if each and other != count]
        hopeless = bool(others) and took_s[-1] > HOPELESS * min(others)
        if hopeless or len(took_s) == TRIES:
            del self._untried[0]

    @property
    def _best(self) -> int:
        """The number whose last works took least."""
        return min(self._took_s, key=lambda count: median(self._took_s[count]))
