"""Chains of scripted peers behind real links, for tests of sessions and failovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import torch

from helpers.clock import Clock
from helpers.loopback import Server, dialed
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.terms import Terms
from swarm.decoding.windows import Window
from swarm.network.links.connection import Connection
from swarm.network.links.link import Link
from swarm.routing.chain import Stage
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Fault,
    Frame,
    Open,
    Opened,
    Result,
    WireMessage,
)
from swarm.wire.tensors import WireTensor

FINGERPRINT = "0" * 32
HIDDEN = 8
WINDOW = Window(0, 0, 1, (3, 4, 5), None, 2, 0)

Script = Callable[[Link, WireMessage], Awaitable[None]]


def result(
    frame: Frame, *, tail: int | None = None, hidden: int = HIDDEN, **changes: int
) -> Result:
    fields = {"epoch": frame.epoch, "first": frame.first, "count": frame.count} | changes
    values = WireTensor.pack(torch.ones(frame.tail if tail is None else tail, hidden))
    return Result(session=frame.session, hidden=values, compute_ms=(1.0,), **fields)


async def good(link: Link, message: WireMessage) -> None:
    if isinstance(message, Open):
        await link.send(Opened(session=message.session))
    elif isinstance(message, Frame):
        await link.send(result(message))


async def mute(link: Link, message: WireMessage) -> None:
    pass


async def mute_frames(link: Link, message: WireMessage) -> None:
    if isinstance(message, Open):
        await good(link, message)


def refusing(code: FaultCode, peer: str | None = None) -> Script:
    async def script(link: Link, message: WireMessage) -> None:
        if isinstance(message, Open):
            await link.send(Fault(code=code, text="no", session=message.session, peer=peer))

    return script


def answering(answer: Callable[[Frame], WireMessage]) -> Script:
    """Accept sessions, and answer each frame by ``answer``."""

    async def script(link: Link, message: WireMessage) -> None:
        await (link.send(answer(message)) if isinstance(message, Frame) else good(link, message))

    return script


class Chain:
    """One scripted peer a stage, one layer each; `heard` is what each was told.

    Attributes:
        clock: of connections and sessions: it goes on when a test says so.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.links: list[ChainLink] = []
        self.servers: list[Server] = []
        self.heard: list[list[WireMessage]] = []

    def session(
        self, *stages: int, hidden_size: int | None = None, max_tokens: int = 64, **options: Any
    ) -> ChainSession:
        """On these of the peers; on all by default."""
        links = [self.links[stage] for stage in stages] or self.links
        return ChainSession(links, Terms(FINGERPRINT, max_tokens, hidden_size), **options)

    def peer(self, number: int) -> str:
        return self.links[number].stage.peer_id


@asynccontextmanager
async def chain_of(*scripts: Script, timed: bool = False) -> AsyncIterator[Chain]:
    """``timed``: the connections go by the chain's clock, as sessions have to that are given it."""
    chain = Chain()
    async with AsyncExitStack() as stack:
        for layer, script in enumerate(scripts):
            heard: list[WireMessage] = []

            async def serve(
                link: Link, script: Script = script, heard: list[WireMessage] = heard
            ) -> None:
                async for message in link:
                    heard.append(message)
                    await script(link, message)

            server = await stack.enter_async_context(Server(serve))
            link = await stack.enter_async_context(dialed(server))
            clock = chain.clock if timed else time.perf_counter
            connection = Connection(server.identity.peer_id, link, clock)
            stack.push_async_callback(connection.close)
            # A record may name addresses that nobody answers at; what counts is where the peer did
            # answer.
            record = server.record(addresses=("127.0.0.1:1", server.address))
            chain.links.append(
                ChainLink(Stage(server.identity.peer_id, layer, layer + 1), record, connection)
            )
            chain.servers.append(server)
            chain.heard.append(heard)
        yield chain


async def give_up_sending(session: ChainSession, window: Window) -> None:
    """Send a window into a link that takes nothing, and cancel the wait: it is booked, and not
    written. Afterwards the link takes messages again."""
    connection = session.chain[0].connection
    with pytest.MonkeyPatch.context() as full:
        full.setattr(connection, "send", lambda _: asyncio.Event().wait())
        sending = asyncio.create_task(session.send(window))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending})


def kinds(messages: Sequence[WireMessage]) -> list[str]:
    return [type(message).__name__ for message in messages]
