"""The serving side of the wire: links are read here, and each message goes where it belongs."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from peers.access.control import AccessControl
from peers.access.limits import AccessLimits
from peers.compute.cache_budget import CacheBudget
from peers.compute.history import HISTORY_BYTES
from peers.compute.scheduler import Scheduler
from peers.counters import Counters
from peers.faults import SessionFault
from peers.sessions.limits import SessionLimits
from peers.sessions.openings import Openings
from peers.sessions.registry import SessionRegistry
from peers.sessions.session import PeerSession
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.fields import MAX_TEXT, SessionId
from swarm.wire.messages import (
    AcceptFrom,
    Behalf,
    Cancel,
    ChangeTerms,
    Close,
    Fault,
    Frame,
    Mirror,
    Open,
    Ping,
    Pong,
    Probe,
    Refine,
    Reroute,
    WireMessage,
)

GOODBYE_TIMEOUT_S = 2.0  # for telling clients that this peer leaves

log = logging.getLogger(__name__)


class Handler:
    """Reads all links of one peer and answers what comes in.

    A link may belong to a client (it opens sessions) or to the peer before us in a chain (it sends
    frames). A session takes commands from the link that opened it alone, and frames from there and
    from the peers that its client has named; a link has proved whose it is.

    Reading a link never waits for another link: else one client that does not read would hold up
    all that share a link with it. What may take time happens in tasks of its own.

    Nothing here grows with what is sent. A link is read message by message, and what has not been
    read stays with its sender. Before the next message is read, the answer to this one is sent;
    only openings are answered later, `MAX_OPENING_PER_LINK` of them at most. The waiting frames of
    a session are bounded by what it has reserved (`Inbox`); a sender that exceeds that loses the
    session. A session computes no more before the next peer has taken its output. `HistoryBudget`
    bounds what sessions keep of their outputs. `AccessControl` decides how much one client may have
    and how fast it may send, and counts what it refuses.

    Layers can be taken up and put down; without any, pings are answered and sessions refused.

    Args:
        fingerprint: the weights that this peer serves layers of.
        dialer: opens links to next peers.
        session_limits: of each session.
        history_bytes: for outputs that are kept in case a next peer fails.
        limits: of one client, one address, and all together.
        clock: seconds, monotonic.

    Attributes:
        sessions: the open ones.
        counters: what was done since the start.
    """

    def __init__(
        self,
        fingerprint: str,
        dialer: Dialer,
        session_limits: SessionLimits | None = None,
        history_bytes: int = HISTORY_BYTES,
        limits: AccessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = AccessControl(limits, clock)
        self.counters = Counters()
        self.sessions = SessionRegistry(
            fingerprint,
            dialer,
            session_limits or SessionLimits(),
            self.admission,
            self.counters,
            history_bytes,
            clock,
        )
        self._openings = Openings(self.sessions, self.admission, self._send)
        self._closing = False

    @property
    def links(self) -> int:
        """Open ones: of clients and of peers, and to next peers."""
        return len(self._openings.links) + len(self.sessions.next_links.links)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received since the start, over all of them."""
        links = (*self._openings.links, *self.sessions.next_links.links)
        sent = self.counters.bytes_sent + sum(link.bytes_sent for link in links)
        return sent, self.counters.bytes_received + sum(link.bytes_received for link in links)

    async def serve(self, link: Link) -> None:
        """Answer everything on one link until it is closed; then close what it has opened."""
        if self._closing or not self.admission.enter(link):
            await link.close()
            return
        self._openings.enter(link)
        try:
            await self._read(link)
        except WireError as error:
            log.warning("%s: %s", link.address, error)
            self.admission.faulted(FaultCode.BAD_MESSAGE, link)
            await self._send(link, Fault(code=FaultCode.BAD_MESSAGE, text=str(error)[:MAX_TEXT]))
        finally:
            # The books first, without waiting: they are right even if we are cancelled here.
            self.admission.leave(link)
            openings = self._openings.leave(link)
            self.counters.closed(link)
            self.sessions.end_all(link)
            await end(*openings)
            await link.close()

    def take_up(self, scheduler: Scheduler, budget: CacheBudget) -> None:
        """Serve these layers from now on. The ones before have been put down."""
        self.sessions.take_up(scheduler, budget)

    async def put_down(self, grace_s: float = 0.0) -> None:
        """Serve no layers any more.

        Running sessions may end by themselves for ``grace_s``; then their clients are told that
        they have to go on with another peer.
        """
        self.sessions.draining = True
        await self.sessions.wait_idle(grace_s)
        await self._openings.settle(GOODBYE_TIMEOUT_S)  # they fail: the peer is draining
        await self.sessions.put_down(GOODBYE_TIMEOUT_S)

    async def close(self) -> None:
        """End all sessions, telling their clients that this peer leaves, and close all links."""
        self._closing = True
        await self.put_down()
        await self.sessions.next_links.close()
        await asyncio.gather(*(link.close() for link in self._openings.links))
        await self.sessions.close()

    async def _read(self, link: Link) -> None:
        """Answer message by message, as fast as the sender may send, until it is banned."""
        received = link.bytes_received
        async for message in link:
            await self._answer(link, message)
            if self.admission.banned(link):
                return
            await self.admission.pace(
                link, link.bytes_received - received, self._forwards(link, message)
            )
            received = link.bytes_received

    async def _answer(self, link: Link, message: WireMessage) -> None:
        """Do what one message asks for. Raises `WireError` for what no peer takes."""
        match message:
            case Frame():
                await self._take_frame(link, message)
            case Open():
                await self._openings.start(link, message)
            case Close():
                self._close_session(link, message.session)
            case Cancel():
                if session := self.sessions.owned(message.session, link):
                    session.cancel(message.epoch)
            case Reroute():
                if session := await self._owned(link, message.session):
                    self._reroute(session, message)
            case AcceptFrom():
                if session := await self._owned(link, message.session):
                    await self._send(link, session.accept_from(message))
            case Mirror():
                if session := await self._owned(link, message.session):
                    session.mirror(message)
            case Probe():
                if session := await self._owned(link, message.session):
                    await self._send(link, session.progress())
            case Refine():
                if session := await self._owned(link, message.session):
                    self._refine(session, message)
            case ChangeTerms():
                if session := await self._owned(link, message.session):
                    await self._change_terms(link, session, message)
            case Ping():
                await self._send(link, Pong(nonce=message.nonce))
            case Behalf():
                self.admission.speaks_for(link, message.clients)
            case _:
                raise WireError(f"a peer takes no {type(message).__name__}")

    async def _take_frame(self, link: Link, frame: Frame) -> None:
        session = self.sessions.get(frame.session)
        if session is None or not session.takes_frames_from(link):
            if not self.sessions.is_over(frame.session):
                await self._send(link, _unknown(frame.session))
            return
        try:
            session.accept(frame)
        except SessionFault as fault:
            by_client = link is session.downstream.opener
            if by_client or fault.code is not FaultCode.NOT_FINITE:
                self.sessions.fail(session, fault, by_client)
                return
            # The session is sound: it goes on with another peer in the place of this one.
            session.cancel(frame.epoch + 1, replays=False)
            self.admission.faulted(fault.code, None)
            fault.peer = link.peer_id or None
            self.sessions.tell(session, fault)

    def _close_session(self, link: Link, session_id: SessionId) -> None:
        if session := self.sessions.owned(session_id, link):
            self.sessions.end(session)
        else:
            self._openings.cancel(link, session_id)

    def _reroute(self, session: PeerSession, reroute: Reroute) -> None:
        try:
            session.reroute(reroute)
        except SessionFault as fault:
            self.sessions.fail(session, fault)
        else:
            self.counters.reroutes += 1
            self.counters.replays += reroute.replay is not None

    def _refine(self, session: PeerSession, refine: Refine) -> None:
        try:
            session.refine(refine)
        except SessionFault as fault:
            self.sessions.fail(session, fault, by_client=True)

    async def _change_terms(self, link: Link, session: PeerSession, message: ChangeTerms) -> None:
        try:
            changed = session.change_terms(message)
        except SessionFault as fault:
            self.sessions.fail(session, fault, by_client=True)
        else:
            await self._send(link, changed)

    async def _owned(self, link: Link, session_id: SessionId) -> PeerSession | None:
        """Return the session that a client speaks of, or tell it that it has none of that id."""
        session = self.sessions.owned(session_id, link)
        if session is None:
            await self._send(link, _unknown(session_id))
        return session

    def _forwards(self, link: Link, message: WireMessage) -> bool:
        """Whether a message is a frame that a peer sends on for a client."""
        session = self.sessions.get(message.session) if isinstance(message, Frame) else None
        return session is not None and session.downstream.opener is not link

    async def _send(self, link: Link, message: WireMessage) -> None:
        if isinstance(message, Fault):
            self.counters.faults[message.code] += 1
        with contextlib.suppress(LinkClosed):  # a sender that left needs no answer
            await link.send(message)


def _unknown(session: SessionId) -> Fault:
    return Fault(code=FaultCode.NO_SESSION, text="unknown or closed", session=session)
