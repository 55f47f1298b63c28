"""How much KV cache a peer has promised away, in tokens, and when some of it may be free again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from swarm.errors import SwarmUnavailable
from swarm.util.averages import ewma

MIN_RETRY_MS = 100.0  # about a round trip: whoever asks sooner asks the same peer in the same state
# a hint about the far future is worth nothing, and a session may end at any time
MAX_RETRY_MS = 30_000.0
FIRST_LIFE_S = 10.0  # of a session, while none has ended yet
FADE = 7 / 8  # what earlier sessions count in the mean life: about the last eight decide


@dataclass(eq=False)
class CacheFull(SwarmUnavailable):
    """A session asks for more cache than is free.

    ``retry_ms``: when to ask again; None if it will never fit.
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
    """Cache promised to one session."""

    tokens: int
    since: float


class CacheBudget:
    """Reservations against a fixed number of tokens: what is promised to a session is there when it
    needs it."""

    def __init__(self, total_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_tokens = total_tokens
        self.free_tokens = total_tokens
        self._clock = clock
        self._held: set[Reservation] = set()
        self._life_s = FIRST_LIFE_S

    def reserve(self, tokens: int) -> Reservation:
        """Raises `CacheFull` and reserves nothing if there is not enough."""
        if tokens > self.free_tokens:
            raise CacheFull(tokens, self.free_tokens, self.total_tokens, self._retry_ms(tokens))
        self.free_tokens -= tokens
        reservation = Reservation(tokens, self._clock())
        self._held.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """The other half of `reserve`. Raises KeyError for what is not reserved (any more)."""
        self._held.remove(reservation)
        self.free_tokens += reservation.tokens
        self._life_s = ewma(self._life_s, self._clock() - reservation.since, FADE)

    def _retry_ms(self, tokens: int) -> float | None:
        """All that is reserved is given back within about one life of a session, at an even pace
        (Little's law)."""
        if tokens > self.total_tokens:
            return None
        wait_s = self._life_s * (tokens - self.free_tokens) / (self.total_tokens - self.free_tokens)
        return min(max(wait_s * 1e3, MIN_RETRY_MS), MAX_RETRY_MS)
