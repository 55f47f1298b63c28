"""The serving side of the wire: what comes in over links, and what is done about it."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from peers.access.admission import Admission, Refused
from peers.access.limits import Limits
from peers.compute.cache_budget import CacheBudget, CacheFull, Reservation
from peers.compute.history import HISTORY_BYTES, HistoryBudget
from peers.compute.scheduler import Scheduler
from peers.counters import Tally
from peers.faults import SessionFault
from peers.sessions.downstream import Outlet
from peers.sessions.next_links import OnwardLinks, TooManyDials
from peers.sessions.session import PeerSession
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.codec import WireError
from swarm.wire.messages import (
    MAX_TEXT,
    AcceptFrom,
    Behalf,
    Cancel,
    Close,
    Fault,
    FaultCode,
    Frame,
    Message,
    Mirror,
    Open,
    Opened,
    Ping,
    Pong,
    Probe,
    Reroute,
    SessionId,
)
from swarm.wire.token_tree import MAX_TAIL

MAX_OVER = 256  # sessions that are over and remembered
MAX_OPENING_PER_LINK = 16  # sessions that one link may be opening at a time
GOODBYE_TIMEOUT_S = 2.0  # for telling clients that this peer leaves

log = logging.getLogger(__name__)


class Handler:
    """All sessions of one peer.

    A link may belong to a client (it opens sessions) or to the peer before us in a chain (it sends
    frames). A session takes commands from the link that opened it alone, and frames from there and
    from the peers that its client has named; a link has proved whose it is.

    Reading a link never waits for another link: one client that does not read would else hold up
    all that share a link with it. What may take time happens in tasks of its own.

    Nothing here grows with what is sent. A link is read message by message, and what has not been
    read stays with its sender; before reading on, answers are waited for, except those of
    `MAX_OPENING_PER_LINK` openings. The frames of a session that wait are bounded by what it has
    reserved (`Inbox`), and whoever sends more loses the session. A session computes no more before
    the next peer has taken its output. What sessions keep of their outputs has a budget, too. How
    much one client may have, and how fast it may speak, is up to the `Admission`, which counts what
    it refuses.

    Layers can be taken up and put down; without any, pings are answered and sessions refused.

    Args:
        scheduler, budget: of the layers to begin with; None for none.
        max_positions: the model's context, which no session may exceed; None if the model sets no
            limit.
        history_bytes: for what has been sent on, in case that a next peer fails.
        limits: of one client, one address, and all together.

    Attributes:
        tally: what was done since the start.
    """

    def __init__(
        self,
        scheduler: Scheduler | None,
        budget: CacheBudget | None,
        fingerprint: str,
        dialer: Dialer,
        max_positions: int | None = None,
        history_bytes: int = HISTORY_BYTES,
        limits: Limits | None = None,
    ) -> None:
        self.draining = False  # no new sessions
        self._closing = False
        self._idle = asyncio.Event()  # there are no sessions
        self._idle.set()
        self.admission = Admission(limits)
        self.histories = HistoryBudget(history_bytes)
        self.tally = Tally()
        self._scheduler, self._budget, self._fingerprint = scheduler, budget, fingerprint
        self._max_positions = max_positions
        self._sessions: dict[SessionId, PeerSession] = {}
        # of every link that is served
        self._opening: dict[Link, dict[SessionId, asyncio.Task[None]]] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._over: deque[SessionId] = deque(maxlen=MAX_OVER)  # lately: their clients know
        self._onward = OnwardLinks(
            dialer, self._fault_from_next, self._next_lost, self.admission, self.tally
        )
        self._answers: dict[type[Message], Callable[[Link, Any], Awaitable[None]]] = {
            Frame: self._frame,
            Open: self._start_opening,
            Close: self._close_session,
            Cancel: self._cancel,
            Reroute: self._reroute,
            AcceptFrom: self._heed,
            Mirror: self._mirror,
            Probe: self._probe,
            Ping: self._pong,
            Behalf: self._behalf,
        }

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def links(self) -> int:
        """Open ones: of clients and of peers, and to next peers."""
        return len(self._opening) + len(self._onward.links)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received since the start, over all of them."""
        links = (*self._opening, *self._onward.links)
        sent = self.tally.bytes_sent + sum(link.bytes_sent for link in links)
        return sent, self.tally.bytes_received + sum(link.bytes_received for link in links)

    async def serve(self, link: Link) -> None:
        """Answer everything on one link until it is closed; then close what it has opened."""
        if self._closing or not self.admission.enter(link):
            await link.close()
            return
        self._opening[link] = {}
        try:
            received = link.bytes_received
            async for message in link:
                answer = self._answers.get(type(message))
                if answer is None:
                    raise WireError(f"a peer takes no {type(message).__name__}")
                await answer(link, message)
                if self.admission.banned(link):
                    break
                await self.admission.pace(
                    link, link.bytes_received - received, self._forwards(link, message)
                )
                received = link.bytes_received
        except WireError as error:
            log.warning("%s: %s", link.address, error)
            self.admission.faulted(FaultCode.BAD_MESSAGE, link)
            await self._say(link, Fault(code=FaultCode.BAD_MESSAGE, text=str(error)[:MAX_TEXT]))
        finally:
            # The books first, without waiting, so that they are right even if we are cancelled
            # here.
            self.admission.leave(link)
            openings = self._opening.pop(link).values()
            self.tally.closed(link)
            for session in [s for s in self._sessions.values() if s.outlet.opener is link]:
                self._end(session)
            await end(*openings)
            await link.close()

    @property
    def queue_ms(self) -> float:
        """What frames have lately waited here for other sessions."""
        return self._scheduler.queue_ms if self._scheduler else 0.0

    def take_up(self, scheduler: Scheduler, budget: CacheBudget) -> None:
        """Serve these layers from now on. The ones before have been put down."""
        self._scheduler, self._budget, self.draining = scheduler, budget, False

    async def put_down(self, grace_s: float = 0.0) -> None:
        """Serve no layers any more.

        Sessions that run may end by themselves for a while; then their clients are told that they
        have to go on with another peer.
        """
        self.draining = True
        with contextlib.suppress(asyncio.TimeoutError):
            await within(grace_s, self._idle.wait())
        openings = [task for openings in self._opening.values() for task in openings.values()]
        if openings:  # they notice by themselves, and say so
            await asyncio.wait(openings, timeout=GOODBYE_TIMEOUT_S)
        await end(*openings)
        for session in list(self._sessions.values()):
            self._fail(session, SessionFault(FaultCode.DRAINING, "the peer gives up these layers"))
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=GOODBYE_TIMEOUT_S)
        self._scheduler = self._budget = None

    async def close(self) -> None:
        """End all sessions, telling their clients that this peer leaves, and close all links."""
        self._closing = True
        await self.put_down()
        await self._onward.close()
        await asyncio.gather(*(link.close() for link in self._opening))
        await end(*self._farewells)

    # Opening and closing.

    async def _start_opening(self, link: Link, opening: Open) -> None:
        """In a task of its own: the next peer may be slow to answer, and others share this link."""
        openings = self._opening[link]
        try:
            await self.admission.opening(link)
        except Refused as refused:
            await self._say(link, refused.message(opening))
            return
        if opening.session in openings:
            await self._say(
                link,
                SessionFault(FaultCode.BAD_MESSAGE, "it is being opened already").message(opening),
            )
        elif len(openings) >= MAX_OPENING_PER_LINK:
            await self._say(
                link, self.admission.refuse("openings", "many are being opened").message(opening)
            )
        else:
            task = openings[opening.session] = asyncio.create_task(self._open(link, opening))
            task.add_done_callback(lambda _: openings.pop(opening.session, None))

    async def _open(self, link: Link, opening: Open) -> None:
        try:
            await self._admit(link, opening)
        except SessionFault as fault:
            await self._say(link, fault.message(opening))
        except Exception as error:
            log.exception("a session could not be opened")
            await self._say(
                link, SessionFault(FaultCode.INTERNAL, type(error).__name__).message(opening)
            )
        else:
            assert self._scheduler is not None  # the session is open
            await self._say(
                link, Opened(session=opening.session, branches=self._scheduler.span.branches)
            )

    async def _admit(self, link: Link, opening: Open) -> None:
        """Reserve, reach the next peer, and put the session on the books; all of it or nothing."""
        scheduler, budget = self._check(link, opening)
        reserved = self._reserve(link, budget, opening.max_tokens)
        onward, history, span = None, None, scheduler.span
        try:
            if opening.next is not None:
                onward = await self._onward.to(opening.next, link)
                self._check(link, opening)  # while we waited, somebody else may have been quicker
                history = self.histories.open(
                    opening.max_tokens, span.hidden_size * span.dtype.itemsize
                )
            self._sessions[opening.session] = PeerSession(
                opening,
                Outlet(opening, link, self._onward, onward, history, self.tally),
                reserved,
                span.new_cache(opening.first, opening.last, opening.max_tokens),
                scheduler,
                self._max_positions,
                self._fail,
            )
            self.admission.reserve(link, opening.max_tokens)
            self.tally.opened += 1
            self._idle.clear()
        except BaseException as error:
            budget.release(reserved)
            self.histories.close(history)
            if onward is not None:
                self._onward.release(onward)
            if isinstance(error, TooManyDials):
                raise Refused("dials", error.why, error.wait_s) from None
            if isinstance(error, LinkClosed) and opening.next is not None:
                raise SessionFault(
                    FaultCode.NEXT_UNREACHABLE, str(error), opening.next.peer_id
                ) from None
            raise

    def _reserve(self, link: Link, budget: CacheBudget, tokens: int) -> Reservation:
        """If there is no room, what was lent to others has to be given back; then there may be."""
        try:
            return budget.reserve(tokens)
        except CacheFull as error:
            refused = self.admission.no_room(link, error)
            self._take_back(budget)
            if tokens > budget.free_tokens:
                raise refused from None
            return budget.reserve(tokens)

    def _take_back(self, budget: CacheBudget) -> None:
        """End sessions of those that hold more than their share, the longest silent first."""
        now, limits = asyncio.get_running_loop().time(), self.admission.limits
        for session in sorted(self._sessions.values(), key=lambda session: session.heard_at):
            lent = (
                now - session.heard_at > limits.lent_silent_s or now - session.since > limits.lent_s
            )
            if lent and self.admission.over_share(session.outlet.opener, budget.total_tokens):
                self._fail(
                    session, self.admission.refuse("lent", "others want the room that you hold")
                )

    def _check(self, link: Link, opening: Open) -> tuple[Scheduler, CacheBudget]:
        """What the session will use. Raises `SessionFault` if it cannot be served."""
        if self.draining or self._scheduler is None or self._budget is None:
            raise SessionFault(
                FaultCode.DRAINING, "the peer gives up its layers, or has not loaded any yet"
            )
        span = self._scheduler.span
        if opening.fingerprint != self._fingerprint:
            raise SessionFault(
                FaultCode.WRONG_MODEL,
                f"the client wants weights {opening.fingerprint[:12]}, this peer serves"
                f" {self._fingerprint[:12]}",
            )
        if not span.first <= opening.first < opening.last <= span.last:
            raise SessionFault(
                FaultCode.WRONG_LAYERS,
                f"layers {opening.first}:{opening.last} asked for, {span.first}:{span.last} are"
                " served here",
            )
        if self._max_positions is not None and opening.max_tokens > self._max_positions + MAX_TAIL:
            most = self._max_positions + MAX_TAIL  # branches share positions
            text = (
                f"the model's context ends at {self._max_positions} tokens; ask for {most} at most,"
                " branches included"
            )
            raise SessionFault(FaultCode.BAD_MESSAGE, text)
        if opening.session in self._sessions:
            raise SessionFault(FaultCode.BAD_MESSAGE, "this session is open already")
        self.admission.check(link, opening.max_tokens, self._budget.total_tokens)
        return self._scheduler, self._budget

    async def _close_session(self, link: Link, message: Close) -> None:
        session = self._sessions.get(message.session)
        if session is not None and session.obeys(link):
            self._end(session)
        elif opening := self._opening[link].get(message.session):
            opening.cancel()  # its client did not want to wait for the next peer

    def _end(self, session: PeerSession) -> None:
        if self._forget(session):
            self._in_background(session.close())

    def _fail(self, session: PeerSession, fault: SessionFault, by_client: bool = False) -> None:
        async def farewell() -> None:
            await session.close()
            await session.outlet.tell(fault)

        if self._forget(session):
            # where the model starts, nobody else sends
            by_client = by_client or session.opening.first == 0
            self.admission.faulted(fault.code, session.outlet.opener if by_client else None)
            self._in_background(farewell())

    def _forget(self, session: PeerSession) -> bool:
        """Take the session off the books; False if that was done before."""
        if self._sessions.get(session.opening.session) is not session:
            return False
        del self._sessions[session.opening.session]
        self._over.append(session.opening.session)
        if not self._sessions:
            self._idle.set()
        assert self._budget is not None  # there was a session
        self._budget.release(session.reserved)
        self.admission.release(session.outlet.opener, session.opening.max_tokens)
        self.histories.close(session.outlet.history)
        return True

    def _in_background(self, farewell: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(farewell)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    # Frames, and what goes wrong with them.

    async def _frame(self, link: Link, frame: Frame) -> None:
        session = self._sessions.get(frame.session)
        if session is None or not session.hears(link):
            # else it was under way, and what matters has been said
            if frame.session not in self._over:
                await self._say(
                    link,
                    Fault(
                        code=FaultCode.NO_SESSION, text="unknown or closed", session=frame.session
                    ),
                )
            return
        try:
            session.accept(frame)
        except SessionFault as fault:
            by_client = link is session.outlet.opener
            if by_client or fault.code is not FaultCode.NOT_FINITE:
                self._fail(session, fault, by_client)
            else:  # the session is sound, and goes on with another peer in the place of that one
                session.cancel(frame.epoch + 1, replays=False)
                self.admission.faulted(fault.code, None)
                fault.peer = link.peer_id or None
                self._in_background(session.outlet.tell(fault))

    def _forwards(self, link: Link, message: Message) -> bool:
        """Whether a message is a frame that a peer sends on for a client."""
        session = self._sessions.get(message.session) if isinstance(message, Frame) else None
        return session is not None and session.outlet.opener is not link

    async def _cancel(self, link: Link, message: Cancel) -> None:
        session = self._sessions.get(message.session)
        if session is not None and session.obeys(link):
            session.cancel(message.epoch)

    async def _reroute(self, link: Link, message: Reroute) -> None:
        session = await self._clients_own(link, message)
        if session is None:
            return
        try:
            session.reroute(message)
        except SessionFault as fault:
            self._fail(session, fault)
        else:
            self.tally.reroutes += 1
            self.tally.replays += message.replay is not None

    async def _heed(self, link: Link, message: AcceptFrom) -> None:
        session = await self._clients_own(link, message)
        if session is not None:
            await self._say(link, session.heed(message))

    async def _mirror(self, link: Link, message: Mirror) -> None:
        session = await self._clients_own(link, message)
        if session is not None:
            session.mirror(message)

    async def _probe(self, link: Link, message: Probe) -> None:
        session = await self._clients_own(link, message)
        if session is not None:
            await self._say(link, session.standing())

    async def _clients_own(
        self, link: Link, message: Reroute | AcceptFrom | Mirror | Probe
    ) -> PeerSession | None:
        """The session that a client speaks of; if it has none of that id, it is told so."""
        session = self._sessions.get(message.session)
        if session is not None and session.obeys(link):
            return session
        await self._say(
            link,
            Fault(code=FaultCode.NO_SESSION, text="unknown or closed", session=message.session),
        )
        return None

    async def _behalf(self, link: Link, message: Behalf) -> None:
        self.admission.speaks_for(link, message.clients)

    async def _pong(self, link: Link, ping: Ping) -> None:
        await self._say(link, Pong(nonce=ping.nonce))

    def _fault_from_next(self, link: Link, fault: Fault) -> None:
        session = self._sessions.get(fault.session or b"")
        if session is not None:
            self._lose_next(session, link, fault.code, fault.text)

    def _next_lost(self, link: Link) -> None:
        for session in self._sessions.values():
            self._lose_next(session, link, FaultCode.NEXT_UNREACHABLE, "the link was lost")

    def _lose_next(self, session: PeerSession, link: Link, code: FaultCode, text: str) -> None:
        """If this was the session's next peer, its client has to know, and may name another one."""
        fault = session.lose(link, code, text)
        if fault is not None:
            self._in_background(session.outlet.tell(fault))

    async def _say(self, link: Link, message: Message) -> None:
        if isinstance(message, Fault):
            self.tally.faults[message.code] += 1
        with contextlib.suppress(LinkClosed):  # whoever left needs no answer
            await link.send(message)
