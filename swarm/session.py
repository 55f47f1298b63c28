"""One generation over one chain of peers: windows out, results in."""

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.decoder import Window
from swarm.errors import SwarmError
from swarm.network.connection import Arrival, Connection
from swarm.network.link import LinkClosed
from swarm.network.records import PeerRecord
from swarm.routing.chain import Stage
from swarm.wire.codec import WireError
from swarm.wire.messages import SESSION_ID_BYTES, Close, Fault, FaultCode, Frame, Hop, Open, Opened, Result

OPEN_TIMEOUT_S = 8.0
RESULT_TIMEOUT_S = 60.0  # a long prompt on a slow chain; a dead peer is noticed by its link long before
MAX_ARRIVALS = 256


class ChainBroken(SwarmError):
    """A peer of the chain failed; what was generated before is lost to this call but not wrong."""

    def __init__(self, peer_id: str, layers: tuple[int, int], why: str) -> None:
        super().__init__(peer_id, layers, why)
        self.peer_id, self.layers, self.why = peer_id, layers, why

    def __str__(self) -> str:
        first, last = self.layers
        return (
            f"the peer ...{self.peer_id[-8:]} (layers {first}:{last}) failed: {self.why}; "
            "run the command again, another route will be chosen if there is one"
        )


@dataclass(frozen=True)
class ChainLink:
    """One stage of a chain with the connection to its peer."""

    stage: Stage
    record: PeerRecord
    connection: Connection

    @property
    def layers(self) -> tuple[int, int]:
        return self.stage.first, self.stage.last


@dataclass(frozen=True)
class Answer:
    """The chain's answer to a window."""

    epoch: int
    start: int
    count: int
    hidden: Tensor  # [tail, hidden], final hidden states before the final norm
    loop_ms: float  # from sending the window to having the answer
    compute_ms: tuple[float, ...]  # of each stage


class ChainSession:
    """The session on every peer of a chain. ``open`` / ``close`` come in pairs; use it as a context manager."""

    def __init__(self, chain: Sequence[ChainLink], fingerprint: str, max_tokens: int) -> None:
        self.chain, self.fingerprint, self.max_tokens = tuple(chain), fingerprint, max_tokens
        self.id = os.urandom(SESSION_ID_BYTES)
        self.bytes_sent = self.bytes_received = 0
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue(MAX_ARRIVALS)
        self._sent_at: dict[tuple[int, int], float] = {}  # (epoch, start) of a window in flight

    async def open(self) -> None:
        """Open on all peers at once.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        for link in self.chain:
            link.connection.subscribe(self.id, self._inbox)
        hops = [
            Hop(peer_id=c.record.peer_id, address=c.record.addresses[0], certificate=c.record.certificate)
            for c in self.chain
        ]
        await asyncio.gather(
            *(self._open_one(link, onward) for link, onward in zip(self.chain, [*hops[1:], None], strict=True))
        )
        waiting = {link.stage.peer_id: link for link in self.chain}
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while waiting:
            try:
                arrival = await asyncio.wait_for(self._inbox.get(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                silent = next(iter(waiting.values()))
                raise self._broken(silent.stage.peer_id, f"no answer in {OPEN_TIMEOUT_S:g} s") from None
            if isinstance(arrival.message, Opened):
                waiting.pop(arrival.peer_id, None)
            else:
                raise self._fault(arrival)

    async def send(self, window: Window) -> None:
        """Send a window into the chain. Raises `ChainBroken` if its first peer is gone."""
        first = self.chain[0].connection
        frame = Frame(session=self.id, epoch=window.epoch, start=window.start, tail=window.tail, tokens=window.tokens)
        self._sent_at[window.epoch, window.start] = time.perf_counter()
        try:
            self.bytes_sent += await first.send(frame)
        except LinkClosed as error:
            raise self._broken(first.peer_id, error.why) from None

    async def receive(self) -> Answer:
        """The next answer.

        Raises:
            ChainBroken: if a peer of the chain fails, or nothing comes for `RESULT_TIMEOUT_S`.
        """
        try:
            arrival = await asyncio.wait_for(self._inbox.get(), RESULT_TIMEOUT_S)
        except asyncio.TimeoutError:
            last = self.chain[-1].stage.peer_id
            raise self._broken(last, f"no result in {RESULT_TIMEOUT_S:g} s") from None
        result = arrival.message
        if not isinstance(result, Result) or arrival.peer_id != self.chain[-1].stage.peer_id:
            raise self._fault(arrival)
        self.bytes_received += arrival.nbytes
        sent_at = self._sent_at.pop((result.epoch, result.start), None)
        if sent_at is None:
            raise self._broken(arrival.peer_id, "it answered what was not asked")
        loop_ms = (time.perf_counter() - sent_at) * 1e3
        return Answer(result.epoch, result.start, result.count, result.hidden.unpack(), loop_ms, result.compute_ms)

    async def close(self) -> None:
        """Tell all peers that are still there; never fails."""
        for link in self.chain:
            link.connection.unsubscribe(self.id)
            if not link.connection.closed:
                with contextlib.suppress(LinkClosed):
                    await link.connection.send(Close(session=self.id))

    async def __aenter__(self) -> "ChainSession":
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open_one(self, link: ChainLink, onward: Hop | None) -> None:
        opening = Open(
            session=self.id,
            fingerprint=self.fingerprint,
            first=link.stage.first,
            last=link.stage.last,
            max_tokens=self.max_tokens,
            next=onward,
        )
        try:
            await link.connection.send(opening)
        except LinkClosed as error:
            raise self._broken(link.stage.peer_id, error.why) from None

    def _fault(self, arrival: Arrival) -> ChainBroken:
        """What an arrival other than the expected one says about whom."""
        message = arrival.message
        if isinstance(message, Fault):
            # Only a lost next peer is somebody else's failure, and then it must be one of the chain.
            to_blame = message.peer if message.code is FaultCode.NEXT_UNREACHABLE and message.peer else arrival.peer_id
            return self._broken(to_blame, message.text or message.code.value)
        if isinstance(message, (LinkClosed, WireError)):
            return self._broken(arrival.peer_id, message.why if isinstance(message, LinkClosed) else str(message))
        return self._broken(arrival.peer_id, f"it sent {type(message).__name__} out of turn")

    def _broken(self, peer_id: str, why: str) -> ChainBroken:
        layers = next((link.layers for link in self.chain if link.stage.peer_id == peer_id), self.chain[0].layers)
        return ChainBroken(peer_id, layers, why)
