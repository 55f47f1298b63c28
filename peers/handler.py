"""The serving side of the wire: what comes in over links, and what is done about it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from peers.budget import CacheBudget, CacheFull
from peers.onward import OnwardLinks
from peers.scheduler import Scheduler
from peers.session import PeerSession, SessionFault
from swarm.network.link import Dialer, Link, LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.messages import (
    MAX_TEXT,
    Cancel,
    Close,
    Fault,
    FaultCode,
    Frame,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
)

MAX_SESSIONS = 256
MAX_OPENING_PER_LINK = 16  # sessions that one link may be opening at a time

log = logging.getLogger(__name__)


class Handler:
    """All sessions of one peer.

    A link may belong to a client (it opens sessions) or to the peer before us in a chain (it sends
    frames). Both kinds may speak in any session whose id they know: an id is 16 random bytes.
    """

    def __init__(self, scheduler: Scheduler, budget: CacheBudget, fingerprint: str, dialer: Dialer) -> None:
        self.draining = False
        self._scheduler, self._budget, self._fingerprint = scheduler, budget, fingerprint
        self._sessions: dict[bytes, PeerSession] = {}
        self._promised: set[bytes] = set()  # sessions whose next peer is still being dialled
        self._opening: dict[Link, set[asyncio.Task[None]]] = {}
        self._onward = OnwardLinks(dialer, self._fault_from_next, self._next_lost)
        self._answers: dict[type[Message], Callable[[Link, Any], Awaitable[None]]] = {
            Frame: self._frame,
            Open: self._start_opening,
            Close: self._close_session,
            Cancel: self._cancel,
            Ping: self._pong,
        }

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    async def serve(self, link: Link) -> None:
        """Answer everything on one link until it is closed; then close what it has opened."""
        self._opening[link] = set()
        try:
            async for message in link:
                answer = self._answers.get(type(message))
                if answer is None:
                    raise WireError(f"a peer takes no {type(message).__name__}")
                await answer(link, message)
        except LinkClosed:
            log.debug("%s left", link.address)
        except WireError as error:
            log.warning("%s: %s", link.address, error)
            await _say(link, Fault(code=FaultCode.BAD_MESSAGE, text=str(error)[:MAX_TEXT]))
        finally:
            for task in self._opening.pop(link):
                task.cancel()
            for session in [s for s in self._sessions.values() if s.opener is link]:
                await self._end(session)
            await link.close()

    async def close(self) -> None:
        """End all sessions, telling their clients that this peer leaves."""
        for session in list(self._sessions.values()):
            await session.tell(SessionFault(FaultCode.DRAINING, "the peer leaves the swarm"))
            await self._end(session)
        await self._onward.close()

    # Opening and closing.

    async def _start_opening(self, link: Link, opening: Open) -> None:
        """In a task of its own: the next peer may be slow to answer, and others share this link."""
        tasks = self._opening[link]
        if len(tasks) >= MAX_OPENING_PER_LINK:
            raise WireError(f"more than {MAX_OPENING_PER_LINK} sessions opening at once")
        task = asyncio.create_task(self._open(link, opening))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _open(self, link: Link, opening: Open) -> None:
        try:
            self._check(opening)
            self._budget.reserve(opening.max_tokens)
        except SessionFault as fault:
            await _refuse(link, opening, fault)
            return
        except CacheFull as error:
            await _refuse(link, opening, SessionFault(FaultCode.BUSY, str(error)))
            return
        self._promised.add(opening.session)
        try:
            onward = await self._onward.to(opening.next) if opening.next else None
        except BaseException as error:
            self._budget.release(opening.max_tokens)
            if not isinstance(error, LinkClosed) or opening.next is None:
                raise
            await _refuse(link, opening, SessionFault(FaultCode.NEXT_UNREACHABLE, str(error), opening.next.peer_id))
            return
        finally:
            self._promised.discard(opening.session)
        cache = self._scheduler.span.new_cache(opening.first, opening.last)
        session = PeerSession(opening, link, onward, cache, self._scheduler, self._session_over)
        self._sessions[opening.session] = session
        await _say(link, Opened(session=opening.session))

    def _check(self, opening: Open) -> None:
        span = self._scheduler.span
        if self.draining:
            raise SessionFault(FaultCode.DRAINING, "the peer is about to leave the swarm")
        if opening.fingerprint != self._fingerprint:
            raise SessionFault(
                FaultCode.WRONG_MODEL,
                f"the client wants weights {opening.fingerprint[:12]}, this peer serves {self._fingerprint[:12]}",
            )
        if not span.first <= opening.first < opening.last <= span.last:
            raise SessionFault(
                FaultCode.WRONG_LAYERS,
                f"layers {opening.first}:{opening.last} asked for, {span.first}:{span.last} are served here",
            )
        if opening.session in self._sessions or opening.session in self._promised:
            raise SessionFault(FaultCode.BAD_MESSAGE, "this session is open already")
        if len(self._sessions) + len(self._promised) >= MAX_SESSIONS:
            raise SessionFault(FaultCode.BUSY, f"{MAX_SESSIONS} sessions are open; try again later")

    async def _close_session(self, link: Link, message: Close) -> None:
        session = self._sessions.get(message.session)
        if session is not None and session.opener is link:
            await self._end(session)

    async def _end(self, session: PeerSession) -> None:
        if self._forget(session):
            await session.close()

    def _forget(self, session: PeerSession) -> bool:
        """Take the session off the books; False if that was done before."""
        if self._sessions.pop(session.opening.session, None) is None:
            return False
        self._budget.release(session.opening.max_tokens)
        return True

    # Frames, and what goes wrong with them.

    async def _frame(self, link: Link, frame: Frame) -> None:
        session = self._sessions.get(frame.session)
        if session is None:
            await _say(link, Fault(code=FaultCode.NO_SESSION, text="unknown or closed", session=frame.session))
            return
        try:
            session.accept(frame)
        except SessionFault as fault:
            await self._fail(session, fault)

    async def _cancel(self, link: Link, message: Cancel) -> None:
        session = self._sessions.get(message.session)
        if session is not None and session.opener is link:
            session.cancel(message.epoch)

    async def _pong(self, link: Link, ping: Ping) -> None:
        await _say(link, Pong(nonce=ping.nonce))

    async def _session_over(self, session: PeerSession, fault: SessionFault) -> None:
        """Called by a session's own task, which ends right after."""
        if self._forget(session):
            await session.tell(fault)

    async def _fail(self, session: PeerSession, fault: SessionFault) -> None:
        if self._forget(session):
            await session.tell(fault)
            await session.close()

    async def _fault_from_next(self, fault: Fault) -> None:
        """The next peer refuses frames of a session: its client has to know."""
        session = self._sessions.get(fault.session or b"")
        if session is not None and session.hop is not None:
            await self._fail(session, SessionFault(fault.code, fault.text, session.hop.peer_id))

    async def _next_lost(self, lost: Link) -> None:
        for session in [s for s in self._sessions.values() if s.onward is lost]:
            assert session.hop is not None
            await self._fail(
                session, SessionFault(FaultCode.NEXT_UNREACHABLE, "the link was lost", session.hop.peer_id)
            )


async def _say(link: Link, message: Message) -> None:
    with contextlib.suppress(LinkClosed):  # whoever left needs no answer
        await link.send(message)


async def _refuse(link: Link, opening: Open, fault: SessionFault) -> None:
    text = fault.text[:MAX_TEXT]
    await _say(link, Fault(code=fault.code, text=text, session=opening.session, peer=fault.peer))
