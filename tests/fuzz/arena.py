"""The arena of scripts: two real peers, strangers with links to them, and a clock that skips."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from helpers.loopback import WatchedSpan
from peers.compute.cache_budget import CacheBudget
from peers.compute.scheduler import Scheduler
from peers.sessions.handler import Handler
from peers.sessions.limits import SessionLimits
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.links.libp2p import StreamLink
from swarm.network.links.link import CONNECT_TIMEOUT_S, Link, LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Close,
    Fault,
    Frame,
    Hop,
    Open,
    Opened,
    Ping,
    Pong,
    Result,
    WireMessage,
)
from swarm.wire.tensors import MAX_FRAME_TOKENS

FINGERPRINT = "f" * 32
CACHE_TOKENS, HISTORY_BYTES, MAX_POSITIONS = 400, 1 << 16, 96
PATIENCE_S = 60.0  # in real time: anything longer hangs
SOCKET_BYTES = 4096  # few, so that a stranger that reads nothing is noticed
SKIP_S = 2.0  # at a time: less than the time between two signs of life
HONEST_ID = b"an honest client"
HONEST_TEXT = [(7 * n + 3) % 97 for n in range(48)]
HONEST_PATIENCE_S = 150.0  # the honest client is never silent for longer
SAID_BY_SINKS = "no"  # the text of faults that a hostile next peer reports, and peers pass on
LEVEL = logging.ERROR


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be moved forward."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


async def settle(rounds: int = 8) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


async def pair(name: str) -> tuple[StreamLink, StreamLink]:
    here, there = socket.socketpair()
    for each in (here, there):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return (
        StreamLink(*await asyncio.open_connection(sock=here), name),
        StreamLink(*await asyncio.open_connection(sock=there), name),
    )


class Stranger:
    """Our end of a link to a peer: sends any bytes, and reads until it is told to stop."""

    def __init__(self, link: StreamLink, arena: "Arena") -> None:
        self.link = link
        self._arena = arena
        self._reading = asyncio.create_task(self._read())

    def say(self, data: bytes, framed: bool = True) -> None:
        if not self.link.closed:
            self.link._writer.write((len(data).to_bytes(4, "big") if framed else b"") + data)

    def stall(self) -> None:
        self._reading.cancel()

    def mute(self) -> None:
        self.link._heart.cancel()

    def vanish(self) -> None:
        self._reading.cancel()
        self.link._transport.abort()

    async def close(self) -> None:
        self.vanish()
        await end(self._reading)
        await self.link.close()

    async def _read(self) -> None:
        async for message in self.link:
            self._arena.heard(message)


@dataclass(frozen=True)
class Dials:
    """The dialer of one of the peers."""

    arena: "Arena"
    name: str

    async def connect(self, address: str, certificate: str, peer_id: str) -> Link:
        return await self.arena.connect(self.name, address)


class Host:
    """A peer without a port."""

    def __init__(self, span: Span, arena: "Arena", name: str) -> None:
        # the two share it, and each computes in a thread of its own
        watched: Any = WatchedSpan(span)
        self.scheduler = Scheduler(watched)
        self.budget = CacheBudget(CACHE_TOKENS)
        self.handler = Handler(
            FINGERPRINT,
            Dials(arena, name),  # type: ignore[arg-type]
            SessionLimits(MAX_POSITIONS),
            HISTORY_BYTES,
        )
        self.handler.take_up(self.scheduler, self.budget)
        self._serving: set[asyncio.Task[None]] = set()
        self._between: set[asyncio.Task[None]] = set()
        self._arena = arena
        self._computing = asyncio.create_task(self.scheduler.run())

    async def link(self, name: str, between: bool = False) -> StreamLink:
        """Return the other end of a served link, after the handshake.

        Links between peers may outlive all sessions.
        """
        ours, theirs = await pair(f"{name}:1")
        theirs.peer_id = id_of(name)
        task = asyncio.create_task(self._serve(theirs))
        self._serving.add(task)
        if between:
            self._between.add(task)
        task.add_done_callback(self._serving.discard)
        return ours

    @property
    def held(self) -> dict[str, int]:
        """What remains of sessions and links: everything that an attacker might fill."""
        handler, histories = self.handler, self.handler.sessions.histories
        amounts = {
            "sessions": len(handler.sessions),
            "cache tokens": self.budget.total_tokens - self.budget.free_tokens,
            "history bytes": histories.total_bytes - histories.free_bytes,
            "links": len(self._serving - self._between),
            "users of links onward": sum(handler.sessions.next_links._users.values()),
            "farewells": len(handler.sessions._farewells),
        }
        return {name: amount for name, amount in amounts.items() if amount}

    async def close(self) -> None:
        await self.handler.close()
        await end(*self._serving, self._computing)

    async def _serve(self, link: Link) -> None:
        try:
            await self.handler.serve(link)
        except Exception as error:
            self._arena.failures.append(f"the handler raised {type(error).__name__}: {error}")
            raise


@dataclass
class Arena:
    """The world of a script. Everything that must not happen is added to ``failures``."""

    span: Span
    reference: torch.Tensor  # [tokens, hidden]: what the whole model says to `HONEST_TEXT`
    failures: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)  # what strangers were told
    # the last link to each hostile next peer
    sinks: dict[str, Stranger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hosts = [Host(self.span, self, "a"), Host(self.span, self, "b")]
        self._strangers: list[Stranger] = []

    async def connect(self, dialling: str, address: str) -> Link:
        """Connect a peer to the host or stranger at an address."""
        name = address.partition(":")[0]
        if name in ("a", "b"):
            return await self.hosts[name == "b"].link(dialling, between=True)
        if name == "slow":
            await asyncio.sleep(CONNECT_TIMEOUT_S)
        if not name.startswith("sink"):
            raise LinkClosed(address, "nobody is there")
        theirs, ours = await pair(address)
        self.sinks[name] = await self.stranger(ours)
        return theirs

    async def stranger(self, link: StreamLink) -> Stranger:
        self._strangers.append(Stranger(link, self))
        return self._strangers[-1]

    def heard(self, message: WireMessage) -> None:
        kind = type(message).__name__
        if isinstance(message, Fault):
            kind = f"{message.code.value} {message.text[:12]}"
            if message.code == FaultCode.INTERNAL and message.text != SAID_BY_SINKS:
                self.failures.append(f"an internal failure: {message.text}")
        self.kinds.add(kind)

    async def skip(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        while seconds > 0:
            loop.skipped_s += SKIP_S
            seconds -= SKIP_S
            await settle(6)

    async def leave(self) -> None:
        """Let all strangers vanish; everything that they held must be given back."""
        for stranger in self._strangers:
            stranger.vanish()
        await asyncio.gather(*(stranger.close() for stranger in self._strangers))
        if not await came_true(lambda: not any(host.held for host in self.hosts)):
            self.failures.append(f"not all was given back: {[host.held for host in self.hosts]}")

    async def close(self) -> None:
        await asyncio.gather(*(host.close() for host in self.hosts))
        await asyncio.gather(*(stranger.close() for stranger in self._strangers))
        ours = {asyncio.current_task()}
        if not await came_true(lambda: asyncio.all_tasks() == ours):
            self.failures.append(f"tasks are left over: {asyncio.all_tasks() - ours}")


async def came_true(condition: Callable[[], bool]) -> bool:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.001)
    return True


class Honest:
    """An honest client with a session on both peers: it gets what it asks for, and nothing else."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._sent = 0
        self._spoke_at = 0.0
        self._links: list[StreamLink] = []

    async def open(self) -> None:
        self._links = [await host.link("honest") for host in self._arena.hosts]
        places = (
            (self._links[1], 2, 4, None, id_of("a")),
            (self._links[0], 0, 2, hop_to("b"), None),
        )
        for link, first, last, hop, previous in places:
            opening = Open(
                session=HONEST_ID,
                fingerprint=FINGERPRINT,
                first=first,
                last=last,
                max_tokens=len(HONEST_TEXT),
                next=hop,
                previous=previous,
            )
            await link.send(opening)
            await self._expect(link, Opened)
        self._spoke_at = asyncio.get_running_loop().time()

    @property
    def grows_impatient(self) -> bool:
        return asyncio.get_running_loop().time() - self._spoke_at > HONEST_PATIENCE_S

    async def speak(self, count: int) -> None:
        """Send more tokens, whose hidden states must be the model's, and a ping."""
        for nonce, link in enumerate(self._links):
            await self._say(link, Ping(nonce=nonce))
            await self._expect(link, Pong)
        tokens = tuple(HONEST_TEXT[self._sent : self._sent + min(count, MAX_FRAME_TOKENS)])
        if not tokens or self._arena.failures:
            return
        frame = Frame(
            session=HONEST_ID, epoch=0, first=self._sent + 1, tail=len(tokens), tokens=tokens
        )
        await self._say(self._links[0], frame)
        result = await self._expect(self._links[1], Result)
        if isinstance(result, Result):
            wanted = self._arena.reference[self._sent : self._sent + len(tokens)]
            if not torch.allclose(result.hidden.unpack(), wanted, rtol=1e-4, atol=1e-4):
                self._arena.failures.append("an honest client got wrong hidden states")
        self._sent += len(tokens)
        self._spoke_at = asyncio.get_running_loop().time()

    async def close(self) -> None:
        for link in self._links:
            with contextlib.suppress(LinkClosed):
                await link.send(Close(session=HONEST_ID))
            await link.close()

    async def _say(self, link: StreamLink, message: WireMessage) -> None:
        try:
            await link.send(message)
        except LinkClosed as error:
            self._arena.failures.append(
                f"an honest client could not say {type(message).__name__}: {error}"
            )

    async def _expect(self, link: StreamLink, kind: type[WireMessage]) -> WireMessage | None:
        try:
            message: WireMessage = await within(PATIENCE_S, link.receive())
        except (asyncio.TimeoutError, LinkClosed, WireError) as error:
            self._arena.failures.append(
                f"an honest client got no {kind.__name__}: {type(error).__name__} {error}"
            )
            return None
        if not isinstance(message, kind):
            self._arena.failures.append(
                f"an honest client got no {kind.__name__} but {message!r:.200}"
            )
        return message


class Complaints(logging.Handler):
    """Collects the errors that the program logs: no stranger may cause one."""

    def __init__(self) -> None:
        super().__init__(LEVEL)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record)[-600:])


@contextlib.contextmanager
def watched_by(complaints: Complaints) -> Iterator[None]:
    """Send the program's logs to ``complaints``, and to no other handler."""
    loggers = [logging.getLogger("swarm"), logging.getLogger("peers")]
    for logger in loggers:
        logger.addHandler(complaints)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(complaints)
            logger.propagate = True


def id_of(name: str) -> str:
    """Return the peer id that a stranger of this name has proved."""
    return f"peer{name:x>10}"


def hop_to(name: str) -> Hop:
    return Hop(peer_id=id_of(name), address=f"{name}:1", certificate="c" * 64)


def reference(span: Span) -> torch.Tensor:
    return span.forward([Work.behind(span.new_cache(), torch.tensor(HONEST_TEXT))])[0]


def run(work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Run ``work`` on a loop of its own, and return failures, with those of tasks and logs."""
    loop, complaints = SkippingLoop(), Complaints()
    lost: list[str] = []
    loop.set_exception_handler(lambda _, context: lost.append(f"a lost error: {context}"[:600]))
    try:
        with watched_by(complaints):
            failures = loop.run_until_complete(work())  # type: ignore[arg-type]
    finally:
        loop.close()
    return [*failures, *lost, *complaints.said]
