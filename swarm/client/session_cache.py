"""Sessions whose text has ended, kept open for a while for a text that continues it.

The next turn of a conversation begins with all earlier turns. The peers of the chain hold their
keys and values as long as the session is open, so that only the rest has to be read.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.chain.session import ChainSession
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken
from swarm.util.tasks import end

KEEP_S = 60.0  # peers may take back the cache of sessions that are silent for longer
MOST_KEPT = 8  # of one client: each reserves cache for a whole text on every peer of its chain


@dataclass(frozen=True)
class _Kept:
    """What a session holds, whose text that is, and until when it is kept."""

    held: ResumePoint
    owner: str | None
    until: float


class SessionCache:
    """Sessions that wait for a next text.

    `put` and `take` come in pairs; a session that is not taken is closed after ``keep_s`` seconds.

    Call `close` before the connections are closed.

    Args:
        trust: in the peers of a session, and in those on whose work it rests.
    """

    def __init__(
        self,
        trust: Trust,
        keep_s: float = KEEP_S,
        most: int = MOST_KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trust = trust
        self._keep_s = keep_s
        self._most = most
        self._clock = clock
        self._kept: dict[ChainSession, _Kept] = {}  # the oldest first
        self._expiring: asyncio.Task[None] | None = None  # while there are any

    def __len__(self) -> int:
        return len(self._kept)

    async def put(self, session: ChainSession, held: ResumePoint, owner: str | None = None) -> None:
        """Keep a session; if there are too many, the oldest is closed.

        A session that a peer has left or lied in is closed at once.

        Args:
            owner: `Options.owner` of its text.
        """
        try:
            await session.rest()
        except ChainBroken:
            await session.close()
            return
        if self._trust.liar(session):
            await session.close()
            return
        self._kept[session] = _Kept(held, owner, self._clock() + self._keep_s)
        if self._expiring is None or self._expiring.done():
            self._expiring = asyncio.create_task(self._expire())
        if len(self._kept) > self._most:
            await self._let_go(next(iter(self._kept)))

    async def take(
        self, prompt: Sequence[int], tokens: int, owner: str | None = None
    ) -> tuple[ChainSession, ResumePoint] | None:
        """Return a session that holds a beginning of a prompt, and give it up to the caller.

        It is the one with the longest beginning and with room for ``tokens`` in all; None without
        one. Sessions that have broken, or whose peers would not be chosen now, are closed.

        Args:
            owner: `Options.owner` of the prompt. A text does not go on from another owner's: that
                it comes faster would tell what the other one has asked.
        """
        while fitting := [
            (len(kept.held.tokens), session)
            for session, kept in self._kept.items()
            if kept.owner == owner and session.max_tokens >= tokens and goes_on(prompt, kept.held)
        ]:
            _, session = max(fitting, key=lambda each: each[0])
            if self._trust.would_use(session) and session.undisturbed():
                return session, self._kept.pop(session).held
            await self._let_go(session)
        return None

    async def shed(self) -> None:
        """Close the sessions that rest on the work of a peer that lied."""
        await asyncio.gather(
            *(self._let_go(each) for each in list(self._kept) if self._trust.liar(each))
        )

    async def close(self) -> None:
        """Close all sessions. Never fails."""
        if self._expiring is not None:
            await end(self._expiring)
        await asyncio.gather(*(self._let_go(session) for session in list(self._kept)))

    async def _let_go(self, session: ChainSession) -> None:
        del self._kept[session]
        await session.close()

    async def _expire(self) -> None:
        while self._kept:
            session, kept = next(iter(self._kept.items()))
            await asyncio.sleep(max(0.0, kept.until - self._clock()))
            if session in self._kept and self._clock() >= kept.until:
                await self._let_go(session)


def goes_on(prompt: Sequence[int], held: ResumePoint) -> bool:
    """Tell whether a prompt begins with all tokens of a session, and has more."""
    count = len(held.tokens)
    return count < len(prompt) and tuple(prompt[:count]) == held.tokens
