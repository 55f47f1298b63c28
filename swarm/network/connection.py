"""A client's connection to one peer: many sessions and pings over one link."""

import asyncio
import itertools
import time
from dataclasses import dataclass

from swarm.network.link import Link, LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.messages import Message, Ping, Pong, SessionId

PING_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Arrival:
    """A message for a session, or why no more will come."""

    peer_id: str
    message: Message | LinkClosed | WireError
    nbytes: int = 0


class Connection:
    """Owns the link and the task that reads it. Close it at the end."""

    def __init__(self, peer_id: str, link: Link) -> None:
        self.peer_id, self.link = peer_id, link
        self.rtt_ms = float("inf")
        self._inboxes: dict[SessionId, asyncio.Queue[Arrival]] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._nonces = itertools.count()
        self._reader = asyncio.create_task(self._read())

    @property
    def closed(self) -> bool:
        return self.link.closed or self._reader.done()

    def subscribe(self, session: SessionId, inbox: "asyncio.Queue[Arrival]") -> None:
        """Let messages of a session go to ``inbox``; when it is full, the link is not read on."""
        self._inboxes[session] = inbox

    def unsubscribe(self, session: SessionId) -> None:
        self._inboxes.pop(session, None)

    async def send(self, message: Message) -> int:
        """Send and return the size in bytes. Raises `LinkClosed`."""
        before = self.link.bytes_sent
        await self.link.send(message)
        return self.link.bytes_sent - before

    async def ping(self) -> float:
        """Measure and remember the round trip in ms. Raises `LinkClosed` without an answer in `PING_TIMEOUT_S`."""
        nonce = next(self._nonces) % (1 << 32)
        answered = self._pings[nonce] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        try:
            await self.link.send(Ping(nonce=nonce))
            await asyncio.wait_for(answered, PING_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise LinkClosed(self.link.address, f"no answer in {PING_TIMEOUT_S:g} s") from None
        finally:
            del self._pings[nonce]
        self.rtt_ms = (time.perf_counter() - started) * 1e3
        return self.rtt_ms

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self.link.close()

    async def _read(self) -> None:
        end: LinkClosed | WireError = LinkClosed(self.link.address, "the other side left")
        try:
            while True:
                before = self.link.bytes_received
                message = await self.link.receive()
                await self._deliver(message, self.link.bytes_received - before)
        except (LinkClosed, WireError) as error:
            end = error
        finally:
            for answered in self._pings.values():
                if not answered.done():
                    answered.set_exception(LinkClosed(self.link.address, "the other side left"))
        for inbox in list(self._inboxes.values()):
            await inbox.put(Arrival(self.peer_id, end))
        await self.link.close()

    async def _deliver(self, message: Message, nbytes: int) -> None:
        if isinstance(message, Pong):
            answered = self._pings.get(message.nonce)
            if answered is not None and not answered.done():
                answered.set_result(None)
            return
        session = getattr(message, "session", None)
        inbox = self._inboxes.get(session) if isinstance(session, bytes) else None
        if inbox is not None:  # else it is late: its session is over
            await inbox.put(Arrival(self.peer_id, message, nbytes))
        elif session is None:  # a fault about the link itself: the next read ends it
            raise WireError(getattr(message, "text", "a message for nobody"))
