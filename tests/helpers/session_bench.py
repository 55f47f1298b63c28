"""One session on one peer, with real links, for tests of how a peer treats frames.

The links lead to its client, to the next peer, and to another one that may replace the next.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import torch

from helpers.loopback import (
    Server,
    WatchedSpan,
    dialed,
    eventually,
    new_member,
    opening,
    session_id,
    soon,
)
from helpers.models import LAYERS
from peers.compute.cache_budget import CacheBudget
from peers.compute.history import History
from peers.compute.scheduler import Computed, Scheduler
from peers.faults import SessionFault
from peers.sessions.downstream import Downstream
from peers.sessions.limits import SessionLimits
from peers.sessions.next_links import NextLinks
from peers.sessions.session import PeerSession
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link
from swarm.util.tasks import end
from swarm.wire.messages import Frame, Hop, Reroute, Result, WireMessage

MAX_POSITIONS = 40


@dataclass
class Other:
    """The other end of a link: keeps the messages that it receives."""

    heard: "asyncio.Queue[WireMessage]" = field(default_factory=asyncio.Queue)

    async def listen(self, link: Link) -> None:
        async for message in link:
            self.heard.put_nowait(message)

    async def next(self) -> WireMessage:
        message: WireMessage = await soon(self.heard.get())
        return message

    async def result(self) -> Result:
        message = await self.next()
        assert isinstance(message, Result), message
        return message

    async def frame(self) -> Frame:
        message = await self.next()
        assert isinstance(message, Frame), message
        return message


@dataclass
class Stage:
    """A session between a client and, unless it is the last, a next peer that may be replaced."""

    session: PeerSession
    client: Other
    following: Other
    other: Other
    other_hop: Hop
    to_client: Link
    next_link: Link | None
    links: NextLinks
    span: WatchedSpan
    scheduler: Scheduler
    faults: list[SessionFault]

    async def fault(self) -> SessionFault:
        await eventually(lambda: bool(self.faults))
        return self.faults[0]

    async def busy(self) -> "asyncio.Task[Computed | None]":
        """Keep the compute thread busy with another session until `go_on` is set."""
        self.span.entered.clear()
        self.span.go_on.clear()
        busy = asyncio.create_task(self.scheduler.compute(Neighbour(self.span.span)))
        await eventually(self.span.entered.is_set)
        return busy

    def reroute(self, epoch: int, root: int, hop: Hop | None = None) -> None:
        message = Reroute(session=session_id(), epoch=epoch, root=root, next=hop or self.other_hop)
        self.session.reroute(message)

    async def waits_for_its_turn(self) -> None:
        await eventually(lambda: bool(self.scheduler._waiting))


@dataclass
class Neighbour:
    """One token of another session."""

    span: Span
    layers: tuple[int, int] = (0, LAYERS)
    tokens: int = 1

    def begin(self) -> Work:
        return Work.behind(self.span.new_cache(), torch.tensor([3]))


@asynccontextmanager
async def stage(
    span: Span,
    *,
    last: bool = True,
    max_tokens: int = 32,
    kept: bool = True,
    epoch: int = 0,
    **limits: float,
) -> AsyncIterator[Stage]:
    client, following, other, faults, watched = Other(), Other(), Other(), [], WatchedSpan(span)
    scheduler, dialer = Scheduler(watched), Dialer(new_member())  # type: ignore[arg-type]
    links = NextLinks(dialer, lambda *_: None, lambda _: None)
    computing = asyncio.create_task(scheduler.run())
    async with (
        Server(client.listen) as at_client,
        Server(following.listen) as at_next,
        Server(other.listen) as at_other,
        dialed(at_client) as to_client,
    ):
        hop = None if last else at_next.hop
        opened = opening("0" * 32, 0, LAYERS, max_tokens=max_tokens, next=hop, epoch=epoch)
        next_link = None if last else await links.to(at_next.hop)
        session = PeerSession(
            opened,
            Downstream(
                opened,
                to_client,
                links,
                next_link,
                History(max_tokens) if kept and not last else None,
            ),
            CacheBudget(max_tokens).reserve(max_tokens),
            span.new_cache(limit=max_tokens),
            scheduler,
            SessionLimits(MAX_POSITIONS, **limits),  # type: ignore[arg-type]
            lambda _, fault: faults.append(fault),
        )
        yield Stage(
            session,
            client,
            following,
            other,
            at_other.hop,
            to_client,
            next_link,
            links,
            watched,
            scheduler,
            faults,
        )
        watched.go_on.set()
        await session.close()
        await session.close()
        assert not any(links._users.values()), "every link is given back"
        await links.close()
        await dialer.close()
    await end(computing)


def stick(link: Link) -> asyncio.Event:
    """Let nothing that is sent on a link be written; the event tells that something waits."""
    waiting = asyncio.Event()

    async def wait(_: WireMessage) -> int:
        waiting.set()
        await asyncio.Event().wait()
        return 0

    link.send = wait  # type: ignore[method-assign]
    return waiting
