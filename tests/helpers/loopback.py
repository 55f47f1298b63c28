"""Real links, spans and peers on loopback, and conditions to wait for, for tests of most rooms."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from warm import OVEN

from helpers.models import ARCHITECTURES, LAYERS, VOCAB, Architecture
from helpers.records import peer_record
from peers.access.limits import AccessLimits
from peers.access.listener import listening
from peers.compute.cache_budget import CacheBudget
from peers.compute.history import HISTORY_BYTES
from peers.compute.scheduler import Scheduler
from peers.sessions.handler import Handler
from peers.sessions.limits import SessionLimits
from swarm.config import Network
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.link import Link
from swarm.util.tasks import end, within
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.handshake import LocalMember
from swarm.wire.messages import Frame, Hop, Open, Ping, Pong, WireMessage
from swarm.wire.tensors import WireTensor

WORDS = [f"w{i}" for i in range(VOCAB)]  # a vocabulary of the size that the test architectures have
PATIENCE_S = 120.0  # for events that take milliseconds on an idle machine
NETWORK = Network("test")
ENDED_STATES = {"Z", "X"}


async def soon(work: Awaitable[Any]) -> Any:
    """Return the result of something that must happen; fail if it takes too long."""
    return await within(PATIENCE_S, work)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition by checking it again and again; fail if it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def children(of: int | None = None) -> dict[int, str]:
    """Return the command lines of a process' living children and theirs, by process id."""
    found = {}
    for task in Path(f"/proc/{of or os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                if alive(pid):
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                    found |= children(pid)
    return {
        pid: command
        for pid, command in found.items()
        if "resource_tracker" not in command and pid != OVEN.pid
    }


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ENDED_STATES


def kill(pids: dict[int, str]) -> None:
    """Kill processes that a failed test left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def default_signals() -> None:
    """Restore the default signal handlers, as `preexec_fn` of children that a test interrupts.

    Shells start background jobs with SIGINT ignored.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


async def pong(link: Link) -> None:
    """Serve a link by answering pings."""
    async for message in link:
        if isinstance(message, Ping):
            await link.send(Pong(nonce=message.nonce))


async def listen(link: Link) -> None:
    """Serve a link by reading all of its messages."""
    async for _ in link:
        pass


def new_member(network: Network = NETWORK) -> LocalMember:
    """Return a member of a network with a new key."""
    return LocalMember(Identity.generate(), network)


class Server:
    """Accepts links on a real port and hands each to ``serve``; closes them at the end."""

    def __init__(
        self,
        serve: Callable[[Link], Awaitable[None]],
        delay_ms: float = 0.0,
        network: Network = NETWORK,
        identity: Identity | None = None,
    ) -> None:
        self.identity = identity or Identity.generate()
        self.limiter = HandshakeLimiter(LocalMember(self.identity, network))
        self._life = contextlib.AsyncExitStack()
        self.links: list[Link] = []  # that have completed the handshake
        self._serve = serve
        self._delay_ms = delay_ms

    @property
    def hop(self) -> Hop:
        return Hop(
            peer_id=self.identity.peer_id, address=self.address, certificate=self.certificate
        )

    @property
    def where(self) -> tuple[str, str, str]:
        """The arguments of `Dialer.connect`."""
        return self.address, self.certificate, self.identity.peer_id

    @property
    def certificate(self) -> str:
        return self.identity.certificate_fingerprint

    def record(self, **changes: Any) -> PeerRecord:
        ours: dict[str, Any] = {
            "model": "tiny",
            "model_layers": LAYERS,
            "last_layer": LAYERS,
            "addresses": (self.address,),
            "certificate": self.certificate,
            "protocol": PROTOCOL_VERSION,
        }
        return peer_record(self.identity.peer_id, **(ours | changes))

    async def __aenter__(self) -> "Server":
        async def take(link: Link) -> None:
            self.links.append(link)
            try:
                await self._serve(link)
            finally:
                await link.close()

        port = await self._life.enter_async_context(
            listening(self.limiter, "127.0.0.1", 0, take, self._delay_ms)
        )
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(link.close() for link in self.links))
        await self.stop()

    async def stop(self) -> None:
        """Stop listening. May be called twice."""
        await self._life.aclose()


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a word; the first of WORDS stands for unknown words."""
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=WORDS[0])
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=WORDS[0])


def tiny_checkpoint(
    folder: Path, max_positions: int = 256, architecture: Architecture = ARCHITECTURES["llama"]
) -> Checkpoint:
    """Save a model with random weights and `LAYERS` layers."""
    settings = {**architecture.settings, "max_position_embeddings": max_positions}
    replace(architecture, settings=settings).save(folder)
    return Checkpoint.open(str(folder))


class WatchedSpan:
    """A span that records its batches, and whose forwards a test can hold.

    Several peers may share one, though each computes in a thread of its own.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, span: Span) -> None:
        self.span = span
        self.batches: list[list[int]] = []  # the tokens of each work
        self.entered = threading.Event()  # a forward has begun
        self.go_on = threading.Event()  # forwards may end
        self.go_on.set()

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.span, name)

    def forward(self, batch: Sequence[Work], first: int, last: int) -> list[torch.Tensor]:
        self.batches.append([len(work.inputs) for work in batch])
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        with self._one_at_a_time:
            return self.span.forward(batch, first, last)


class SharedHead:
    """A head that several peers share, though each computes in a thread of its own."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._one_at_a_time = threading.Lock()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        with self._one_at_a_time:
            return self._head.logits(hidden)


class Peer:
    """A peer without a directory: a real span behind a real port."""

    def __init__(
        self,
        span: Span,
        fingerprint: str,
        cache_tokens: int = 256,
        max_positions: int = 256,
        history_bytes: int = HISTORY_BYTES,
        limits: AccessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        head: Any = None,
        **session_limits: float,
    ) -> None:
        self.span = span
        self.fingerprint = fingerprint
        self.server = Server(lambda link: self.handler.serve(link))
        self.dialer = Dialer(self.server.limiter.me)
        self.handler = Handler(
            fingerprint,
            self.dialer,
            SessionLimits(max_positions, **session_limits),  # type: ignore[arg-type]
            history_bytes,
            limits,
            clock,
        )
        self.scheduler = Scheduler(span, self.handler.counters, head=head)
        self.budget = CacheBudget(cache_tokens)
        self.handler.take_up(self.scheduler, self.budget)

    async def __aenter__(self) -> "Peer":
        self._computing = asyncio.create_task(self.scheduler.run())
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.handler.close()
        await self.server.__aexit__()
        await self.dialer.close()
        await end(self._computing)

    async def die(self) -> None:
        """Vanish as a killed process does: the kernel closes its connections."""
        for link in (*self.server.links, *self.handler.sessions.next_links._users):
            link._transport.abort()
        await self.__aexit__()

    @property
    def id(self) -> str:
        return self.server.identity.peer_id

    @property
    def idle(self) -> bool:
        cache, histories = self.budget, self.handler.sessions.histories
        given_back = (cache.free_tokens, histories.free_bytes) == (
            cache.total_tokens,
            histories.total_bytes,
        )
        return not self.handler.sessions and given_back


@contextlib.asynccontextmanager
async def dialed(
    server: Server, delay_ms: float = 0.0, me: LocalMember | None = None
) -> AsyncIterator[Link]:
    """Yield a client's link to a server."""
    dialer = Dialer(me or new_member(), delay_ms)
    try:
        async with await dialer.connect(*server.where) as link:
            yield link
    finally:
        await dialer.close()


async def ask(link: Link, message: WireMessage) -> WireMessage:
    """Send a message, and return the next one as its answer."""
    await link.send(message)
    answer: WireMessage = await soon(link.receive())
    return answer


def session_id(number: int = 0) -> bytes:
    return number.to_bytes(16, "big")


def opening(fingerprint: str, first: int, last: int, **changes: Any) -> Open:
    fields: dict[str, Any] = {"session": session_id(), "fingerprint": fingerprint, "max_tokens": 64}
    return Open(**(fields | {"first": first, "last": last} | changes))


def tokens_frame(first: int, tokens: tuple[int, ...], **changes: Any) -> Frame:
    """Return a frame of tokens from serial ``first`` on, with an answer for each of them."""
    fields: dict[str, Any] = {
        "session": session_id(),
        "epoch": 0,
        "first": first,
        "tail": len(tokens),
    }
    return Frame(**(fields | {"tokens": tokens} | changes))


def hidden_frame(first: int, hidden: torch.Tensor, **changes: Any) -> Frame:
    """Return a frame of hidden states from serial ``first`` on, with an answer for each of them."""
    packed = WireTensor.pack(hidden)
    fields: dict[str, Any] = {
        "session": session_id(),
        "epoch": 0,
        "first": first,
        "tail": packed.tokens,
    }
    return Frame(**(fields | {"hidden": packed} | changes))
