"""A client's own observations of peers: failures, and how long their layers really take.

Local only: a client neither tells them to others, who could not check them, nor takes theirs.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from swarm.util.averages import ewma

FIRST_BACKOFF_S = 5.0  # after the first failure; it doubles with every further one
MOST_BACKOFF_S = 600.0
FORGET_S = 1800.0  # without a failure, after which a peer's earlier failures are forgotten
FADE = 0.8  # what an older measurement still counts for the next one
BAN_S = 7 * 86_400.0  # for a peer that lied; identities cost nothing: longer would not help
MAX_REMEMBERED = 4096  # peers; those seen longest ago are forgotten first

NO_BANS: Mapping[str, float] = MappingProxyType({})


@dataclass
class _Seen:
    failures: int = 0
    failed_at: float = 0.0
    layer_ms: float | None = None
    queue_ms: float = 0.0


class Health:
    """Which peers one client may use now, and how fast it found them.

    Args:
        clock: seconds, monotonic; what backoffs are counted in.
        wall_clock: seconds since 1970; what bans are counted in, since they outlive the process.
        block: peers that are never used.
        allow: if any are named, only these are used.
        bans: until when, in seconds since 1970, peers that lied are not used.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        block: Collection[str] = (),
        allow: Collection[str] = (),
        bans: Mapping[str, float] = NO_BANS,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._block = frozenset(block)
        self._allow = frozenset(allow)
        self._bans = dict(bans)
        self._seen: dict[str, _Seen] = {}

    def failed(self, peer_id: str) -> None:
        """Record that a peer broke a session or did not answer.

        It is not used for a while, twice as long as after the failure before.
        """
        seen = self._of(peer_id)
        if self._clock() - seen.failed_at > FORGET_S:
            seen.failures = 0
        seen.failures += 1
        seen.failed_at = self._clock()

    def served(self, peer_id: str, layers: int, compute_ms: float, queue_ms: float) -> None:
        """Record a loop: the time that a peer computed ``layers``, and that the frame waited."""
        seen = self._of(peer_id)
        per_layer = compute_ms / max(1, layers)
        seen.layer_ms = ewma(seen.layer_ms, per_layer, FADE)
        seen.queue_ms = ewma(seen.queue_ms, queue_ms, FADE)

    def recovered(self, peer_id: str) -> None:
        """Record that a whole generation succeeded with a peer."""
        if peer_id in self._seen:
            self._seen[peer_id].failures = 0

    def ban(self, peer_id: str) -> None:
        """Record that a peer lied: it is not used for `BAN_S`."""
        self._bans.pop(peer_id, None)
        while len(self._bans) >= MAX_REMEMBERED:
            del self._bans[next(iter(self._bans))]
        self._bans[peer_id] = self._wall_clock() + BAN_S

    @property
    def bans(self) -> dict[str, float]:
        """The banned peers, and until when, in seconds since 1970."""
        now = self._wall_clock()
        return {peer_id: until for peer_id, until in self._bans.items() if until > now}

    def usable(self, peer_id: str) -> bool:
        """Return whether a peer may be part of a chain now."""
        return self.permitted(peer_id) and self.retry_in_s(peer_id) <= 0

    def permitted(self, peer_id: str) -> bool:
        """Return whether a peer may be part of a chain, however it failed.

        It may if the user does not exclude it and it is not banned.
        """
        if peer_id in self._block or (self._allow and peer_id not in self._allow):
            return False
        return not self.banned(peer_id)

    def banned(self, peer_id: str) -> bool:
        """Return whether a peer lied less than `BAN_S` ago."""
        return self._bans.get(peer_id, 0.0) > self._wall_clock()

    def retry_in_s(self, peer_id: str) -> float:
        """Return for how long a peer is still not used after its failures; 0 or less if it is."""
        seen = self._seen.get(peer_id)
        if seen is None or not seen.failures:
            return 0.0
        backoff_s = min(FIRST_BACKOFF_S * 2.0 ** (seen.failures - 1), MOST_BACKOFF_S)
        return seen.failed_at + backoff_s - self._clock()

    def layer_ms(self, peer_id: str) -> float | None:
        """Return the measured time of one of a peer's layers; None before its first loop."""
        seen = self._seen.get(peer_id)
        return seen.layer_ms if seen else None

    def queue_ms(self, peer_id: str) -> float | None:
        """Return how long frames waited at a peer lately; None before its first loop."""
        seen = self._seen.get(peer_id)
        return seen.queue_ms if seen and seen.layer_ms is not None else None

    def _of(self, peer_id: str) -> _Seen:
        seen = self._seen.pop(peer_id, None) or _Seen()
        while len(self._seen) >= MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[peer_id] = seen  # at the end: seen last
        return seen
