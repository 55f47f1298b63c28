"""How much KV cache a peer has promised to sessions, in tokens, and when to ask again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from swarm.errors import SwarmUnavailable
from swarm.util.averages import ewma

MIN_RETRY_MS = 100.0  # about a round trip: a client that asks sooner finds the same state
# a hint about the far future is worth nothing: a session may end at any time
MAX_RETRY_MS = 30_000.0
FIRST_LIFE_S = 10.0  # assumed of a session while none has ended yet
FADE = 7 / 8  # the weight of earlier sessions in the mean life: about the last eight decide


@dataclass(eq=False)
class CacheFull(SwarmUnavailable):
    """A session asks for more cache than is free.

    Attributes:
        retry_ms: when to ask again; None if it will never fit.
    """

    asked_tokens: int
    free_tokens: int
    total_tokens: int
    retry_ms: float | None

    def __str__(self) -> str:
        return (
            f"{self.asked_tokens} tokens of cache asked for, {self.free_tokens} of"
            f" {self.total_tokens} are free; ask for fewer tokens or try again later"
        )


@dataclass(frozen=True, eq=False)
class Reservation:
    """Cache promised to one session; ``since`` is on the budget's clock."""

    tokens: int
    since: float


class CacheBudget:
    """Reservations against a fixed number of tokens.

    A session finds the cache that it was promised when it needs it.

    Args:
        clock: seconds, monotonic.
        session_tokens: that each session costs besides its own: what it keeps however short it is
            takes as much memory.
    """

    def __init__(
        self,
        total_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        session_tokens: int = 0,
    ) -> None:
        self.total_tokens = total_tokens
        self._unreserved = total_tokens
        self._session_tokens = session_tokens
        self._clock = clock
        self._held: set[Reservation] = set()
        self._life_s = FIRST_LIFE_S

    @property
    def free_tokens(self) -> int:
        """How many tokens the next session may ask for."""
        return max(0, self._unreserved - self._session_tokens)

    def reserve(self, tokens: int) -> Reservation:
        """Reserve cache. Raise `CacheFull`, and reserve nothing, if there is not enough."""
        if tokens > self.free_tokens:
            raise CacheFull(tokens, self.free_tokens, self.total_tokens, self._retry_ms(tokens))
        self._unreserved -= tokens + self._session_tokens
        reservation = Reservation(tokens, self._clock())
        self._held.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back. Raise KeyError if it is not held (any more)."""
        self._held.remove(reservation)
        self._unreserved += reservation.tokens + self._session_tokens
        self._life_s = ewma(self._life_s, self._clock() - reservation.since, FADE)

    def _retry_ms(self, tokens: int) -> float | None:
        """Return when to ask again; None if that many tokens never fit.

        All reserved cache is given back within about one life of a session, at an even pace
        (Little's law).
        """
        if tokens > self.total_tokens - self._session_tokens:
            return None
        lacking = tokens + self._session_tokens - self._unreserved
        wait_s = self._life_s * lacking / (self.total_tokens - self._unreserved)
        return min(max(wait_s * 1e3, MIN_RETRY_MS), MAX_RETRY_MS)
