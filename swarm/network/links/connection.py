"""A client's connection to one peer: many sessions and pings over one link."""

import asyncio
import itertools
import time
from collections.abc import Callable

from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.codec import WireError
from swarm.wire.fields import SessionId
from swarm.wire.messages import Fault, Ping, Pong, SessionMessage, WireMessage

PING_TIMEOUT_S = 3.0


class Connection:
    """Owns the link and the task that reads it. Close it at the end.

    Args:
        clock: seconds; what comes in is stamped by it as soon as it is read.
    """

    def __init__(
        self, peer_id: str, link: Link, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.peer_id = peer_id
        self.link = link
        self.rtt_ms = link.rtt_ms
        self._clock = clock
        self._inboxes: dict[SessionId, ArrivalQueue] = {}
        # when it was answered; None if it is lost
        self._pings: dict[int, asyncio.Future[float | None]] = {}
        self._nonces = itertools.count()
        self._ended: LinkClosed | WireError | None = None
        self._why = ""  # we closed it
        self._reader = asyncio.create_task(self._read())

    @property
    def closed(self) -> bool:
        return self.link.closed or self._ended is not None

    @property
    def idle(self) -> bool:
        """Whether no session and no ping waits for this peer."""
        return not self._inboxes and not self._pings

    def subscribe(self, session: SessionId, inbox: ArrivalQueue) -> None:
        """Deliver messages of a session to ``inbox``.

        A peer that sends more than it holds breaks the protocol.
        """
        self._inboxes[session] = inbox
        if self._ended is not None:
            inbox.put_last(Arrival(self.peer_id, self._ended, self._clock()))

    def unsubscribe(self, session: SessionId) -> None:
        self._inboxes.pop(session, None)

    async def send(self, message: WireMessage) -> int:
        """Send and return the size in bytes. Raises `LinkClosed`."""
        return await self.link.send(message)

    async def ping(self) -> float:
        """Measure and remember the round trip in ms.

        Raises `LinkClosed` without an answer in `PING_TIMEOUT_S`.
        """
        nonce = next(self._nonces) % (1 << 32)
        answered: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._pings[nonce] = answered
        started = self._clock()

        async def ask() -> float | None:
            await self.link.send(Ping(nonce=nonce))
            return await answered

        try:
            at = None if self._ended is not None else await within(PING_TIMEOUT_S, ask())
            if at is None:
                raise LinkClosed(self.link.address, "the other side left")
        except asyncio.TimeoutError:
            raise LinkClosed(self.link.address, f"no answer in {PING_TIMEOUT_S:g} s") from None
        finally:
            del self._pings[nonce]
        self.rtt_ms = (at - started) * 1e3
        return self.rtt_ms

    async def close(self, why: str = "we closed it") -> None:
        """Close the link; sessions that still listen are told why. May be called twice."""
        self._why = why
        await end(self._reader)
        await self.link.close()

    async def _read(self) -> None:
        ended: LinkClosed | WireError | None = None
        try:
            while True:
                before = self.link.bytes_received
                message = await self.link.receive()
                self._deliver(message, self.link.bytes_received - before)
        except (LinkClosed, WireError) as error:
            ended = error
        finally:
            self._ended = ended = ended or LinkClosed(self.link.address, self._why)
            for answered in self._pings.values():
                if not answered.done():
                    answered.set_result(None)
            for inbox in self._inboxes.values():
                inbox.put_last(Arrival(self.peer_id, ended, self._clock()))
        await self.link.close()

    def _deliver(self, message: WireMessage, nbytes: int) -> None:
        """Deliver without waiting: an unread session must not delay pings and other sessions."""
        match message:
            case Pong():
                answered = self._pings.get(message.nonce)
                if answered is not None and not answered.done():
                    answered.set_result(self._clock())
                return
            case SessionMessage(session=session) | Fault(session=bytes(session)):
                pass
            case Fault():  # about the link itself
                raise WireError(message.text)
            case _:
                raise WireError(f"it sent {type(message).__name__}, which is of no session")
        inbox = self._inboxes.get(session)
        if inbox is None:  # it is late: its session is over
            return
        try:
            inbox.put_nowait(Arrival(self.peer_id, message, self._clock(), nbytes))
        except asyncio.QueueFull:
            waiting = f"{inbox.qsize()} messages wait already, of {inbox.nbytes} bytes"
            raise WireError(f"{waiting}; no more were asked for") from None
