"""The sessions that are open at one peer: what they may use, and what each gives back at its end.

A session is opened whole or not at all. It is forgotten once, and with it all that it reserved.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peers.access.control import AccessControl, LimitReached
from peers.compute.cache_budget import CacheBudget, CacheFull, Reservation
from peers.compute.history import HISTORY_BYTES, History, HistoryBudget
from peers.compute.scheduler import Scheduler
from peers.counters import Counters
from peers.faults import SessionFault
from peers.sessions.downstream import Downstream
from peers.sessions.limits import SessionLimits
from peers.sessions.next_links import NextLinks, TooManyDials
from peers.sessions.session import PeerSession
from swarm.errors import SpanError
from swarm.model.cache import KVCache
from swarm.model.span import Span
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.faults import FaultCode
from swarm.wire.fields import SessionId
from swarm.wire.messages import Fault, Hop, Open, Opened
from swarm.wire.token_tree import MAX_TAIL

MAX_OVER = 256  # ended sessions that are remembered: frames may still be on their way to them


@dataclass(frozen=True)
class Served:
    """The layers that a peer serves now, and the cache that their sessions share."""

    scheduler: Scheduler
    budget: CacheBudget


class SessionRegistry(Mapping[SessionId, PeerSession]):
    """The open sessions by their id.

    Args:
        fingerprint: the weights that this peer serves layers of.
        dialer: opens links to next peers.
        limits: of each session.
        history_bytes: for outputs that are kept in case a next peer fails.
        admission: what one client, one address, and all together may have open.
        clock: seconds, monotonic.

    Attributes:
        draining: no new sessions are opened.
        next_links: to the peers that follow in the sessions' chains.
        histories: what sessions keep of their outputs.
    """

    def __init__(
        self,
        fingerprint: str,
        dialer: Dialer,
        limits: SessionLimits,
        admission: AccessControl,
        counters: Counters,
        history_bytes: int = HISTORY_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.draining = False
        self.histories = HistoryBudget(history_bytes)
        self.next_links = NextLinks(
            dialer, self._fault_from_next, self._next_lost, admission, counters
        )
        self._fingerprint = fingerprint
        self._limits = limits
        self._admission = admission
        self._counters = counters
        self._clock = clock
        self._served: Served | None = None
        self._open: dict[SessionId, PeerSession] = {}
        self._over: deque[SessionId] = deque(maxlen=MAX_OVER)
        self._farewells: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()  # no session is open
        self._idle.set()

    def __getitem__(self, session: SessionId) -> PeerSession:
        return self._open[session]

    def __iter__(self) -> Iterator[SessionId]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def owned(self, session: SessionId, link: Link) -> PeerSession | None:
        """Return a session if it takes commands from this link."""
        found = self._open.get(session)
        return found if found is not None and found.obeys(link) else None

    def is_over(self, session: SessionId) -> bool:
        """Whether a session was open lately. Its client has been told why it ended."""
        return session in self._over

    @property
    def queue_ms(self) -> float:
        """How long frames have lately waited here for other sessions."""
        return self._served.scheduler.queue_ms if self._served else 0.0

    # What is served.

    def take_up(self, scheduler: Scheduler, budget: CacheBudget) -> None:
        """Serve these layers from now on. The ones before have been put down."""
        self._served = Served(scheduler, budget)
        self.draining = False

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no session is open, but no longer than this."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(timeout_s, self._idle.wait())

    async def put_down(self, goodbye_s: float) -> None:
        """Fail all sessions and serve no layers any more.

        Args:
            goodbye_s: for telling the clients.
        """
        for session in list(self._open.values()):
            self.fail(session, SessionFault(FaultCode.DRAINING, "the peer gives up these layers"))
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=goodbye_s)
        self._served = None

    async def close(self) -> None:
        """End what still tells clients about their sessions, after `put_down`."""
        await end(*self._farewells)

    # Opening.

    async def open(self, link: Link, opening: Open) -> Opened:
        """Reserve cache, reach the next peer, copy what the session begins with, and register it;
        all of it or nothing.

        Returns the answer to the client.

        Raises:
            SessionFault: if the session cannot be opened.
        """
        served = self._check(link, opening)
        span = served.scheduler.span
        with contextlib.ExitStack() as undo:
            reserved = self._reserve(link, served.budget, opening.max_tokens)
            undo.callback(served.budget.release, reserved)
            next_link = None
            if opening.next is not None:
                next_link = await self._reach(opening.next, link)
                undo.callback(self.next_links.release, next_link)
                self._check(link, opening)  # meanwhile another opening may have been quicker
            source = self._source(link, opening)
            history = self._history(span, opening, source)
            undo.callback(self.histories.close, history)
            cache = _new_cache(span, opening)
            if source is not None and opening.fork is not None:
                await source.lend(opening.fork, cache, history)
                self._check(link, opening)  # as above
            session = PeerSession(
                opening,
                Downstream(opening, link, self.next_links, next_link, history, self._counters),
                reserved,
                cache,
                served.scheduler,
                self._limits,
                self.fail,
                self._clock,
            )
            undo.pop_all()
        self._open[opening.session] = session
        self._admission.reserve(link, opening.max_tokens)
        self._counters.opened += 1
        self._idle.clear()
        return Opened(
            session=opening.session,
            branches=span.branches,
            taps=span.taps,
            forks=not span.recurrent,
            held=0 if opening.fork is None else opening.fork.count,
        )

    def _check(self, link: Link, opening: Open) -> Served:
        """Return what the session will use. Raises `SessionFault` if it cannot be served."""
        if self.draining or self._served is None:
            raise SessionFault(
                FaultCode.DRAINING, "the peer gives up its layers, or has not loaded any yet"
            )
        span = self._served.scheduler.span
        check_opening(
            opening, (span.first, span.last), self._fingerprint, self._limits.max_positions
        )
        if opening.head is not None and (
            self._served.scheduler.head is None or opening.last != span.last
        ):
            raise SessionFault(FaultCode.WRONG_LAYERS, "this peer does not hold the model's head")
        if opening.session in self._open:
            raise SessionFault(FaultCode.BAD_MESSAGE, "this session is open already")
        self._admission.check(link, opening.max_tokens, self._served.budget.total_tokens)
        return self._served

    def _source(self, link: Link, opening: Open) -> PeerSession | None:
        """Return the session that another one is to begin with, if there is one.

        Raises `SessionFault` if it is not this client's, or holds other layers.
        """
        if opening.fork is None:
            return None
        source = self.owned(opening.fork.session, link)
        if source is None:
            raise SessionFault(
                FaultCode.NO_SESSION,
                "you have no session of that id here to begin with; open one that begins with none",
            )
        if source.layers != (opening.first, opening.last):
            raise SessionFault(
                FaultCode.BAD_MESSAGE, "a session begins with one of the same layers"
            )
        return source

    async def _reach(self, hop: Hop, link: Link) -> Link:
        try:
            return await self.next_links.to(hop, link)
        except TooManyDials as error:
            raise LimitReached("dials", error.why, error.wait_s) from None
        except LinkClosed as error:
            raise SessionFault(FaultCode.NEXT_UNREACHABLE, str(error), hop.peer_id) from None

    def _history(self, span: Span, opening: Open, source: PeerSession | None) -> History | None:
        """Return what keeps the outputs, if they may be needed again and there is room for them.

        Outputs of the beginning have been kept, or none are: they cannot be computed without it.
        """
        history = None
        complete = source is None or source.downstream.history is not None
        if complete and (opening.next is not None or opening.head is not None):
            row_bytes = span.hidden_size * span.dtype.itemsize
            history = self.histories.open(opening.max_tokens, row_bytes)
        if opening.head is not None and history is None:
            raise SessionFault(FaultCode.BUSY, "no room to keep what candidates come from")
        return history

    def _reserve(self, link: Link, budget: CacheBudget, tokens: int) -> Reservation:
        """Reserve cache; if there is too little, first take back what was lent to others."""
        try:
            return budget.reserve(tokens)
        except CacheFull as error:
            refused = self._admission.no_room(link, error)
            self._take_back(budget)
            if tokens > budget.free_tokens:
                raise refused from None
            return budget.reserve(tokens)

    def _take_back(self, budget: CacheBudget) -> None:
        """Fail sessions of clients that hold more than their share, the longest silent first."""
        now, limits = self._clock(), self._admission.limits
        for session in sorted(self._open.values(), key=lambda session: session.heard_at):
            lent = (
                now - session.heard_at > limits.lent_silent_s or now - session.since > limits.lent_s
            )
            if lent and self._admission.over_share(session.downstream.opener, budget.total_tokens):
                self.fail(
                    session, self._admission.refuse("lent", "others want the room that you hold")
                )

    # Ending.

    def end(self, session: PeerSession) -> None:
        """Close a session in the background without a word to its client. May be called twice."""
        if self._forget(session):
            self._in_background(session.close())

    def end_all(self, opener: Link) -> None:
        """Close the sessions that one link has opened."""
        for session in [each for each in self._open.values() if each.downstream.opener is opener]:
            self.end(session)

    def fail(self, session: PeerSession, fault: SessionFault, by_client: bool = False) -> None:
        """Close a session in the background and tell its client why. May be called twice.

        Args:
            by_client: the client itself broke the protocol, not a peer before this one.
        """

        async def farewell() -> None:
            await session.close()
            await session.downstream.tell(fault)

        if self._forget(session):
            # where the model starts, only the client sends
            by_client = by_client or session.opening.first == 0
            self._admission.faulted(fault.code, session.downstream.opener if by_client else None)
            self._in_background(farewell())

    def tell(self, session: PeerSession, fault: SessionFault) -> None:
        """Tell a session's client in the background; the session goes on."""
        self._in_background(session.downstream.tell(fault))

    def _forget(self, session: PeerSession) -> bool:
        """Take a session off the books; return False if that was done before."""
        opening = session.opening
        if self._open.get(opening.session) is not session:
            return False
        del self._open[opening.session]
        self._over.append(opening.session)
        if not self._open:
            self._idle.set()
        assert self._served is not None  # layers are put down after their sessions
        self._served.budget.release(session.reserved)
        self._admission.release(session.downstream.opener, opening.max_tokens)
        self.histories.close(session.downstream.history)
        return True

    def _in_background(self, farewell: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(farewell)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    # Next peers.

    def _fault_from_next(self, link: Link, fault: Fault) -> None:
        session = self._open.get(fault.session or b"")
        if session is not None:
            self._lose_next(session, link, fault.code, fault.text)

    def _next_lost(self, link: Link) -> None:
        for session in self._open.values():
            self._lose_next(session, link, FaultCode.NEXT_UNREACHABLE, "the link was lost")

    def _lose_next(self, session: PeerSession, link: Link, code: FaultCode, text: str) -> None:
        """If the link led to the session's next peer, tell the client, which may name another."""
        fault = session.lose(link, code, text)
        if fault is not None:
            self.tell(session, fault)


def check_opening(
    opening: Open, served: tuple[int, int], fingerprint: str, max_positions: int | None
) -> None:
    """Check what does not depend on other sessions.

    Args:
        served: the layers ``[first, last)`` of this peer.
        fingerprint: of the weights that it serves.
        max_positions: the model's context; None if the model sets no limit.

    Raises:
        SessionFault: if the session asks for anything else.
    """
    first, last = served
    if opening.fingerprint != fingerprint:
        raise SessionFault(
            FaultCode.WRONG_MODEL,
            f"the client wants weights {opening.fingerprint[:12]}, this peer serves"
            f" {fingerprint[:12]}",
        )
    if not first <= opening.first < opening.last <= last:
        raise SessionFault(
            FaultCode.WRONG_LAYERS,
            f"layers {opening.first}:{opening.last} asked for, {first}:{last} are served here",
        )
    if max_positions is not None and opening.max_tokens > max_positions + MAX_TAIL:
        most = max_positions + MAX_TAIL  # branches share positions
        raise SessionFault(
            FaultCode.BAD_MESSAGE,
            f"the model's context ends at {max_positions} tokens; ask for {most} at most,"
            " branches included",
        )


def _new_cache(span: Span, opening: Open) -> KVCache:
    """Return the cache of a session. Raise `SessionFault` where the model may not be cut so."""
    try:
        return span.new_cache(opening.first, opening.last, opening.max_tokens)
    except SpanError as error:
        raise SessionFault(FaultCode.WRONG_LAYERS, error.problem) from None
