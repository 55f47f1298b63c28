"""Links to the peers that come next: one a peer, shared by all sessions that go there."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from peers.counters import Tally
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.codec import WireError
from swarm.wire.messages import Fault, Hop

# links kept for the next session that goes there; a client could make us open any number
MAX_IDLE = 16

log = logging.getLogger(__name__)

Where = tuple[str, str, str]  # address, certificate and peer id


class Dials(Protocol):
    """How often a client may have us dial in vain."""

    def dial(self, link: Link) -> float:
        """Seconds that the client behind a link has to wait before we dial for it; 0 if it need
        not."""
        ...

    def dialled(self, link: Link) -> None:
        """Somebody answered."""
        ...


@dataclass(eq=False)
class TooManyDials(LinkClosed):
    """A client had us dial too many peers that did not answer."""

    why: str = field(default="too many peers that you named lately did not answer", init=False)
    wait_s: float


class OnwardLinks:
    """Opens links on demand and listens on them: a next peer only ever reports faults, or is lost.

    Every `to` needs its `release`.

    Args:
        faulted: called with every fault that a next peer reports, and the link it came over.
        lost: called when a link is closed.
        dials: None if there is no limit.
        tally: has what went over links that are closed.
    """

    def __init__(
        self,
        dialer: Dialer,
        faulted: Callable[[Link, Fault], None],
        lost: Callable[[Link], None],
        dials: Dials | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._dials, self._tally = dials, tally or Tally()
        self._dialer, self._faulted, self._lost = dialer, faulted, lost
        self._links: dict[Where, Link] = {}
        self._users: dict[Link, int] = {}
        self._listeners: dict[Link, asyncio.Task[None]] = {}
        self._dialing: WeakValueDictionary[Where, asyncio.Lock] = WeakValueDictionary()

    @property
    def links(self) -> tuple[Link, ...]:
        """All that are open."""
        return tuple(self._listeners)

    async def to(self, hop: Hop, opener: Link | None = None) -> Link:
        """The link to a peer, which the client behind ``opener`` named.

        Raises `LinkClosed` if it does not answer, and `TooManyDials`.
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

    async def _dial(self, where: Where, opener: Link | None) -> Link:
        if self._dials is None or opener is None:
            return await self._dialer.connect(*where)
        if wait_s := self._dials.dial(opener):
            raise TooManyDials(where[0], wait_s)
        link = await self._dialer.connect(*where)
        self._dials.dialled(opener)
        return link

    def release(self, link: Link) -> None:
        """A session that got the link is over.

        The link waits for the next one, unless too many do.
        """
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
        """Owns the link: it is closed when this ends, however that comes about."""
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
            self._tally.closed(link)
            self._lost(link)
            await link.close()

    def _forget(self, link: Link) -> None:
        """Let nobody get this link any more."""
        self._links = {where: kept for where, kept in self._links.items() if kept is not link}
        self._users.pop(link, None)
