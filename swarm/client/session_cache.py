"""Sessions that another text may go on from: those whose text has ended, kept open for a while, and
those whose text is being written.

Texts of one user begin alike: the next turn of a conversation with all earlier turns, the requests
of an agent with the same instructions and tools. The peers of the chain hold the keys and values
as long as a session is open, so that only the rest has to be read. A session that rests, and whose
text is the beginning of the next one, is given up to it. Any other is forked: the peers begin a
new session with a copy of what both texts have in common.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from swarm.chain.session import ChainSession
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken
from swarm.util.tasks import end
from swarm.wire.tensors import MAX_FRAME_TOKENS

KEEP_S = 60.0  # peers may take back the cache of sessions that are silent for longer
MOST_KEPT = 8  # of one client: each reserves cache for a whole text on every peer of its chain
# Tokens in common from which on a fork is worth it. A prompt travels in frames of so many, one
# behind the other: to read fewer takes no more than another frame, but a fork binds the text to the
# chain of the other one, whatever is the fastest now.
LEAST_SHARED = MAX_FRAME_TOKENS
# A kept session of which another one holds all but this share is given up: to read the rest again
# costs little beside the cache that it takes.
OWN_SHARE = 1 / 8


@dataclass(frozen=True)
class Found:
    """A session that holds a beginning of a prompt.

    Attributes:
        held: what it holds.
        shared: how many of these tokens the prompt begins with.
        taken: it was given up to the caller: the text goes on in it, from all that it holds. Else
            it stays, to be forked.
    """

    session: ChainSession
    held: ResumePoint
    shared: int
    taken: bool

    def as_found(self) -> ResumePoint:
        """Return what it holds."""
        return self.held


@dataclass(frozen=True)
class _Kept:
    """What a session holds, whose text that is, and until when it is kept."""

    held: ResumePoint
    owner: str | None
    until: float


@dataclass(frozen=True)
class _Running:
    """What tells what a session holds so far, and whose text is written in it."""

    held: Callable[[], ResumePoint]
    owner: str | None


class SessionCache:
    """Sessions that hold beginnings of texts.

    `put` and `find` come in pairs; a session that is not taken or forked for ``keep_s`` seconds is
    closed. Call `close` before the connections are closed.

    Args:
        trust: in the peers of a session, and in those on whose work it rests.

    Attributes:
        least_shared: tokens in common from which on a session is forked.
    """

    def __init__(
        self,
        trust: Trust,
        keep_s: float = KEEP_S,
        most: int = MOST_KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.least_shared = LEAST_SHARED
        self._trust = trust
        self._keep_s = keep_s
        self._most = most
        self._clock = clock
        self._kept: dict[ChainSession, _Kept] = {}  # the one used longest ago first
        self._running: dict[ChainSession, _Running] = {}
        self._expiring: asyncio.Task[None] | None = None  # while there are any

    def __len__(self) -> int:
        """How many sessions rest here."""
        return len(self._kept)

    # Coming and going.

    def begun(
        self, session: ChainSession, held: Callable[[], ResumePoint], owner: str | None = None
    ) -> None:
        """Let other texts of its owner begin with one that is written now, until `put` or `left`.

        Args:
            held: returns what all peers hold of the text by now.
        """
        self._running[session] = _Running(held, owner)

    def left(self, session: ChainSession) -> None:
        """Note that nothing begins with a session any more that is not kept. May be called for any
        session, and twice."""
        self._running.pop(session, None)

    async def put(self, session: ChainSession, held: ResumePoint, owner: str | None = None) -> None:
        """Keep a session.

        Those are closed that another one makes up for, and if there are too many, the one that was
        used longest ago. A session that a peer has left or lied in is closed at once.

        Args:
            owner: `Options.owner` of its text.
        """
        try:
            await session.rest()  # meanwhile others may begin with it, as before
        except ChainBroken:
            self.left(session)
            await session.close()
            return
        self.left(session)
        if self._trust.liar(session):
            await session.close()
            return
        self._kept[session] = _Kept(held, owner, self._clock() + self._keep_s)
        if self._expiring is None or self._expiring.done():
            self._expiring = asyncio.create_task(self._expire())
        for needless in self._made_up_for(owner):
            await self.drop(needless)
        if len(self._kept) > self._most:
            await self.drop(next(iter(self._kept)))

    async def find(
        self, prompt: Sequence[int], tokens: int, owner: str | None = None
    ) -> Found | None:
        """Return the session that holds the longest beginning of a prompt; None if none is worth
        it. Other texts may begin with one that is taken, too, until `put` or `left`.

        Sessions that have broken, or whose peers would not be chosen now, are closed.

        Args:
            tokens: that the text needs room for, in a session that it goes on in.
            owner: `Options.owner` of the prompt. A text does not go on from another owner's: that
                it comes faster would tell what the other one has asked. Texts whose owner is not
                known, None, count as those of one owner.
        """
        while candidates := [*self._whole(prompt, tokens, owner), *self._forks(prompt, owner)]:
            # what the copy of a little more is worth does not make up for a second session
            best = max(candidates, key=lambda each: each.shared + each.taken * self.least_shared)
            if not self._usable(best.session):
                await self.drop(best.session)
            elif best.taken:
                del self._kept[best.session]
                self.begun(best.session, best.as_found, owner)
                return best
            else:
                self._touch(best.session)
                return best
        return None

    async def drop(self, session: ChainSession) -> None:
        """Have no text begin with a session any more; close it if it rests."""
        self.left(session)
        if self._kept.pop(session, None) is not None:
            await session.close()

    async def make_room(self, owner: str | None, source: ChainSession) -> bool:
        """Close the owner's resting sessions but the ``source``; return whether there were any."""
        others = [
            session
            for session, kept in self._kept.items()
            if kept.owner == owner and session is not source
        ]
        await asyncio.gather(*(self.drop(each) for each in others))
        return bool(others)

    async def shed(self) -> None:
        """Close the sessions that rest on the work of a peer that lied."""
        await asyncio.gather(
            *(self.drop(each) for each in list(self._kept) if self._trust.liar(each))
        )

    async def close(self) -> None:
        """Close all sessions. Never fails."""
        if self._expiring is not None:
            await end(self._expiring)
        await asyncio.gather(*(self.drop(session) for session in list(self._kept)))

    # What fits.

    def _whole(self, prompt: Sequence[int], tokens: int, owner: str | None) -> Iterator[Found]:
        """Yield the sessions in which a prompt can go on from all that they hold."""
        for session, kept in self._kept.items():
            count = len(kept.held.tokens)
            fits = kept.owner == owner and session.max_tokens >= tokens
            if fits and goes_on(prompt, kept.held):
                yield Found(session, kept.held, count, taken=True)

    def _forks(self, prompt: Sequence[int], owner: str | None) -> Iterator[Found]:
        """Yield the sessions with which a prompt has enough in common for a fork."""
        for session, held in self._of(owner):
            # the last token of a prompt is always read: what follows it is to be predicted
            count = min(common(prompt, held.tokens), len(prompt) - 1)
            if count >= self.least_shared and session.can_be_forked:
                yield Found(session, held, count, taken=False)

    def _of(self, owner: str | None) -> Iterator[tuple[ChainSession, ResumePoint]]:
        for session, kept in self._kept.items():
            if kept.owner == owner:
                yield session, kept.held
        for session, running in self._running.items():
            if running.owner == owner:
                yield session, running.held()

    def _usable(self, session: ChainSession) -> bool:
        """Return whether a session is still there, and on peers that may be used."""
        if session in self._kept and not session.undisturbed():
            return False
        return self._trust.would_use(session) and not any(
            link.connection.closed for link in session.chain
        )

    def _made_up_for(self, owner: str | None) -> list[ChainSession]:
        """Return the kept sessions of an owner of which others hold nearly all, the ones used
        longest ago first: a text would go on from these others, and read little more."""
        left = {session: kept for session, kept in self._kept.items() if kept.owner == owner}
        needless: list[ChainSession] = []
        for session, kept in list(left.items()):
            tokens = kept.held.tokens
            needed = max(self.least_shared, math.ceil((1 - OWN_SHARE) * len(tokens)))
            if any(
                each is not session
                and each.can_be_forked
                and needed <= len(tokens)
                and tokens[:needed] == other.held.tokens[:needed]
                for each, other in left.items()
            ):
                needless.append(session)
                del left[session]
        return needless

    # How long.

    def _touch(self, session: ChainSession) -> None:
        """Keep a session that was forked as long as one that was put here now."""
        kept = self._kept.pop(session, None)
        if kept is not None:
            until = self._clock() + self._keep_s
            self._kept[session] = _Kept(kept.held, kept.owner, until)

    async def _expire(self) -> None:
        while self._kept:
            session, kept = next(iter(self._kept.items()))
            await asyncio.sleep(max(0.0, kept.until - self._clock()))
            now = self._clock()  # a fork may have let it stay meanwhile
            if session in self._kept and now >= self._kept[session].until:
                await self.drop(session)


def goes_on(prompt: Sequence[int], held: ResumePoint) -> bool:
    """Tell whether a prompt begins with all tokens of a session, and has more."""
    count = len(held.tokens)
    return count < len(prompt) and tuple(prompt[:count]) == held.tokens


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginning.

    By comparing slices, each half as long as the one before: a text of 24,000 tokens takes less
    than a millisecond.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(one[low:middle]) == tuple(other[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
