"""Links to the peers that come next: one a peer, shared by all sessions that go there."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from swarm.network.link import Dialer, Link, LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.messages import Fault, Hop

log = logging.getLogger(__name__)


class OnwardLinks:
    """Opens links on demand and listens on them: a next peer only ever reports faults, or is lost.

    Args:
        faulted: called with every fault that a next peer reports.
        lost: called when a link is closed.
    """

    def __init__(
        self,
        dialer: Dialer,
        faulted: Callable[[Fault], Awaitable[None]],
        lost: Callable[[Link], Awaitable[None]],
    ) -> None:
        self._dialer, self._faulted, self._lost = dialer, faulted, lost
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[Link, asyncio.Task[None]] = {}
        self._dialing: dict[tuple[str, str], asyncio.Lock] = {}

    async def to(self, hop: Hop) -> Link:
        """The link to a peer. Raises `LinkClosed` if it does not answer."""
        key = (hop.address, hop.certificate)
        lock = self._dialing.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                link = self._links.get(key)
                if link is None or link.closed:
                    link = await self._dialer.connect(hop.address, hop.certificate)
                    self._links[key] = link
                    self._listeners[link] = asyncio.create_task(self._listen(key, link))
                return link
        finally:
            if not lock.locked():
                self._dialing.pop(key, None)

    async def close(self) -> None:
        for listener in list(self._listeners.values()):
            listener.cancel()
        for link in list(self._links.values()):
            await link.close()

    async def _listen(self, key: tuple[str, str], link: Link) -> None:
        try:
            async for message in link:
                if isinstance(message, Fault):
                    await self._faulted(message)
        except WireError as error:
            log.warning("the next peer at %s: %s", link.address, error)
        finally:
            if self._links.get(key) is link:
                del self._links[key]
            self._listeners.pop(link, None)
        with contextlib.suppress(LinkClosed):
            await link.close()
        await self._lost(link)
