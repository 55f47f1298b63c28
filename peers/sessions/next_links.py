"""Links to next peers: one for each peer, shared by all sessions that go there."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from peers.counters import Counters
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.codec import WireError
from swarm.wire.messages import Fault, Hop

# links kept open for later sessions; else clients could make us keep any number
MAX_IDLE = 16

log = logging.getLogger(__name__)

Endpoint = tuple[str, str, str]  # address, certificate and peer id


class DialLimiter(Protocol):
    """Limits how often a client may have us dial in vain."""

    def dial(self, link: Link) -> float:
        """Return the seconds that the client behind a link has to wait before we dial for it."""
        ...

    def dialled(self, link: Link) -> None:
        """Record that the peer answered."""
        ...


@dataclass(eq=False)
class TooManyDials(LinkClosed):
    """A client had us dial too many peers that did not answer."""

    why: str = field(default="too many peers that you named lately did not answer", init=False)
    wait_s: float


class NextLinks:
    """Opens links on demand and listens on them: a next peer only ever reports faults, or is lost.

    Every `to` needs its `release`.

    Args:
        faulted: called with every fault that a next peer reports, and the link it came over.
        lost: called when a link is closed.
        dials: limits dials in vain; None for no limit.
        counters: have what went over links that are closed.
    """

    def __init__(
        self,
        dialer: Dialer,
        faulted: Callable[[Link, Fault], None],
        lost: Callable[[Link], None],
        dials: DialLimiter | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._dials = dials
        self._counters = counters or Counters()
        self._dialer = dialer
        self._faulted = faulted
        self._lost = lost
        self._links: dict[Endpoint, Link] = {}
        self._users: dict[Link, int] = {}
        self._listeners: dict[Link, asyncio.Task[None]] = {}
        self._dialing: WeakValueDictionary[Endpoint, asyncio.Lock] = WeakValueDictionary()

    @property
    def links(self) -> tuple[Link, ...]:
        """All open links."""
        return tuple(self._listeners)

    async def to(self, hop: Hop, opener: Link | None = None) -> Link:
        """Return the link to a peer; dial it if there is none. Call `release` afterwards.

        Args:
            opener: the link of the client that named the peer; None if no client did.

        Raises:
            LinkClosed: if the peer does not answer.
            TooManyDials: if too many peers that the client named did not answer.
        """
        where = (hop.address, hop.certificate, hop.peer_id)
        lock = self._dialing.setdefault(where, asyncio.Lock())
        async with lock:
            link = self._links.get(where)
            if link is None or link.closed:
                link = await self._dial(where, opener)
                self._links[where], self._users[link] = link, 0
                self._listeners[link] = asyncio.create_task(self._listen(link))
        if link not in self._users:
            raise LinkClosed(link.address, "it was lost at once")
        self._users[link] += 1
        return link

    async def _dial(self, where: Endpoint, opener: Link | None) -> Link:
        if self._dials is None or opener is None:
            return await self._dialer.connect(*where)
        if wait_s := self._dials.dial(opener):
            raise TooManyDials(where[0], wait_s)
        link = await self._dialer.connect(*where)
        self._dials.dialled(opener)
        return link

    def release(self, link: Link) -> None:
        """Give a link back. It stays open for later sessions, unless too many links do."""
        if link not in self._users:  # lost meanwhile
            return
        self._users[link] -= 1
        idle = [each for each, users in self._users.items() if not users]
        for old in idle[: max(0, len(idle) - MAX_IDLE)]:
            self._forget(old)
            self._listeners[old].cancel()

    async def close(self) -> None:
        await end(*self._listeners.values())

    async def _listen(self, link: Link) -> None:
        """Own a link: read it, and close it in any case."""
        try:
            async for message in link:
                if not isinstance(message, Fault):
                    raise WireError(f"a next peer says no {type(message).__name__}")
                self._faulted(link, message)
        except WireError as error:
            log.warning("the next peer at %s: %s", link.address, error)
        finally:
            self._forget(link)
            del self._listeners[link]
            self._counters.closed(link)
            self._lost(link)
            await link.close()

    def _forget(self, link: Link) -> None:
        """Give this link to no session any more."""
        self._links = {where: kept for where, kept in self._links.items() if kept is not link}
        self._users.pop(link, None)
