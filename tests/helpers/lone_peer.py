"""One peer on loopback and a client of it: what tests of sessions over real links share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch

from helpers.loopback import (
    Peer,
    ask,
    dialed,
    eventually,
    opening,
    session_id,
)
from helpers.models import LAYERS
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Fault,
    Hop,
    Open,
    Opened,
    Reroute,
    Result,
    WireMessage,
)

MIDDLE = 2


HIDDEN = 32


@asynccontextmanager
async def lone_peer(
    span: Span, tiny: Checkpoint, **options: Any
) -> AsyncIterator[tuple[Peer, Link]]:
    """A peer and a client's link to it. In the end nothing may be left of any session."""
    async with Peer(span, tiny.fingerprint, **options) as peer:
        async with dialed(peer.server) as link:
            yield peer, link
        await eventually(lambda: peer.idle)


async def refused(link: Link, opening: Open) -> FaultCode:
    fault = await ask(link, opening)
    assert isinstance(fault, Fault)
    assert fault.session == opening.session
    return fault.code


async def told_to_come_back(link: Link, opening: Open) -> bool:
    fault = await ask(link, opening)
    assert isinstance(fault, Fault)
    return fault.code == FaultCode.BUSY and fault.retry_ms is not None


def expected(span: Span, *chunks: tuple[int, ...]) -> torch.Tensor:
    tokens = torch.tensor([token for chunk in chunks for token in chunk])
    return span.forward([Work.behind(span.new_cache(), tokens)])[0]


def close_to(answer: WireMessage, hidden: torch.Tensor) -> None:
    assert isinstance(answer, Result), answer
    torch.testing.assert_close(answer.hidden.unpack(), hidden, rtol=1e-4, atol=1e-4)


async def open_both(to_first: Link, first: Peer, to_second: Link, second: Peer) -> None:
    for link, message in (
        (to_second, opening(second.fingerprint, MIDDLE, LAYERS, previous=first.id)),
        (to_first, opening(first.fingerprint, 0, MIDDLE, next=second.server.hop)),
    ):
        assert isinstance(await ask(link, message), Opened)


async def hang(link: Link) -> None:
    await asyncio.Event().wait()


NOBODY = Hop(peer_id=Identity.generate().peer_id, address="127.0.0.1:1", certificate="0" * 64)


def reroute(hop: Hop, **changes: Any) -> Reroute:
    return Reroute(**({"session": session_id(), "epoch": 1, "root": 2, "next": hop} | changes))
