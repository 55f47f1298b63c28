"""One generation over one chain of peers: windows out, results in."""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.decoder import Window
from swarm.errors import SwarmError
from swarm.network.connection import Arrival, Connection
from swarm.network.link import LinkClosed
from swarm.network.records import PeerRecord
from swarm.network.tasks import within
from swarm.results import Measured
from swarm.routing.chain import Stage
from swarm.wire.messages import SESSION_ID_BYTES, Cancel, Close, Fault, Frame, Hop, Message, Open, Opened, Result
from swarm.wire.tensors import MAX_FRAME_TOKENS

OPEN_TIMEOUT_S = 8.0
RESULT_TIMEOUT_S = 60.0  # a full frame on a slow chain; a dead peer is noticed by its link long before
CLOSE_TIMEOUT_S = 2.0  # for saying goodbye; a peer that did not hear it notices when the link is closed
MAX_ARRIVALS = 256  # answers and faults that wait, beside one answer for each chunk of a prompt


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
    """The chain's answer to a window, or to several in a row that a busy peer computed together."""

    epoch: int
    first: int  # serial
    count: int  # tokens
    hidden: Tensor  # [tail, hidden], final hidden states before the final norm
    measured: Measured  # from sending the last of the windows


class ChainSession:
    """The session on every peer of a chain. ``open`` / ``close`` come in pairs; use it as a context manager.

    One task may send and another one receive.

    Attributes:
        branches: every peer takes several continuations of one token; known once it is open.

    Args:
        hidden_size: the model's width; an answer of another width is a failure of the peer that sent it.
    """

    def __init__(
        self, chain: Sequence[ChainLink], fingerprint: str, max_tokens: int, hidden_size: int | None = None
    ) -> None:
        self.chain, self.fingerprint = tuple(chain), fingerprint
        self.max_tokens, self.hidden_size = max_tokens, hidden_size
        self.id = os.urandom(SESSION_ID_BYTES)
        self.bytes_sent = self.bytes_received = 0
        self.branches = True
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue(MAX_ARRIVALS + max_tokens // MAX_FRAME_TOKENS)
        self._sent: deque[tuple[Window, float]] = deque()  # windows in flight, and when they were sent
        self._epoch = 0  # of the last window

    async def open(self) -> None:
        """Open on all peers at once, and wait until all have answered.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        for link in self.chain:
            link.connection.subscribe(self.id, self._inbox)
        # The address at which a peer answered us is the best one to give to the peer before it.
        hops = [
            Hop(peer_id=c.record.peer_id, address=c.connection.link.address, certificate=c.record.certificate)
            for c in self.chain
        ]
        waiting = {link.stage.peer_id: link for link in self.chain}
        try:
            await within(OPEN_TIMEOUT_S, self._open_all([*hops[1:], None], waiting))
        except asyncio.TimeoutError:
            silent = next(iter(waiting))
            raise self._broken(silent, f"no answer in {OPEN_TIMEOUT_S:g} s") from None

    async def send(self, window: Window) -> None:
        """Send a window into the chain. If it begins a new epoch, a cancel overtakes what is on its way.

        Raises:
            ChainBroken: if a peer is gone.
        """
        first, *others = (link.connection for link in self.chain)
        frame = Frame(
            session=self.id,
            epoch=window.epoch,
            root=window.root,
            first=window.first,
            tail=window.tail,
            parents=window.parents,
            tokens=window.tokens,
        )
        self._sent.append((window, time.perf_counter()))
        await self._tell(first, frame)
        if window.epoch > self._epoch:
            self._epoch = window.epoch
            await asyncio.gather(*(self._tell(each, Cancel(session=self.id, epoch=window.epoch)) for each in others))

    async def receive(self) -> Answer:
        """The next answer; those to windows of an older epoch are skipped.

        Raises:
            ChainBroken: if a peer of the chain fails, or nothing comes for `RESULT_TIMEOUT_S`.
        """
        while True:
            arrival = await self._next_arrival()
            result = arrival.message
            if not isinstance(result, Result) or arrival.peer_id != self.chain[-1].stage.peer_id:
                raise self._fault(arrival)
            self.bytes_received += arrival.nbytes
            sent_at = self._answered(result)
            if self.hidden_size is not None and result.hidden.hidden != self.hidden_size:
                wide = f"its answer is {result.hidden.hidden} wide, not {self.hidden_size}"
                raise self._broken(arrival.peer_id, wide)
            if result.epoch == self._epoch:
                loop_ms = (time.perf_counter() - sent_at) * 1e3
                measured = Measured(loop_ms, result.compute_ms, result.queue_ms)
                return Answer(result.epoch, result.first, result.count, result.hidden.unpack(), measured)

    async def close(self) -> None:
        """Tell all peers that are still there; never fails, and takes `CLOSE_TIMEOUT_S` at most."""
        for link in self.chain:
            link.connection.unsubscribe(self.id)
        there = [link.connection for link in self.chain if not link.connection.closed]
        goodbyes = asyncio.gather(*(c.send(Close(session=self.id)) for c in there), return_exceptions=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(CLOSE_TIMEOUT_S, goodbyes)

    async def __aenter__(self) -> "ChainSession":
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _next_arrival(self) -> Arrival:
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        try:
            return await within(RESULT_TIMEOUT_S, self._inbox.get())
        except asyncio.TimeoutError:
            last = self.chain[-1].stage.peer_id
            raise self._broken(last, f"no result in {RESULT_TIMEOUT_S:g} s") from None

    def _answered(self, result: Result) -> float:
        """Strike off the windows that a result answers; returns when the last of them was sent.

        Windows of older epochs may have died on their way, and need no answer.
        """
        while self._sent and self._sent[0][0].epoch < result.epoch:
            self._sent.popleft()
        tokens = tail = 0
        sent_at = None
        while self._sent and tokens < result.count and self._sent[0][0].first == result.first + tokens:
            window, sent_at = self._sent.popleft()
            tokens, tail = tokens + len(window.tokens), tail + window.tail
        if sent_at is None or window.epoch != result.epoch or (tokens, tail) != (result.count, result.hidden.tokens):
            raise self._broken(self.chain[-1].stage.peer_id, "it answered what was not asked")
        return sent_at

    async def _tell(self, connection: Connection, message: Message) -> None:
        try:
            self.bytes_sent += await connection.send(message)
        except LinkClosed as error:
            raise self._broken(connection.peer_id, error.why) from None

    async def _open_all(self, onward: Sequence[Hop | None], waiting: dict[str, ChainLink]) -> None:
        """Ask all peers at once, then take out of ``waiting`` who has answered, until nobody is left."""
        asked = await asyncio.gather(*map(self._open_one, self.chain, onward), return_exceptions=True)
        for error in filter(None, asked):
            raise error
        while waiting:
            arrival = await self._inbox.get()
            if not isinstance(arrival.message, Opened):
                raise self._fault(arrival)
            self.branches = self.branches and arrival.message.branches
            waiting.pop(arrival.peer_id, None)

    async def _open_one(self, link: ChainLink, onward: Hop | None) -> None:
        opening = Open(
            session=self.id,
            fingerprint=self.fingerprint,
            first=link.stage.first,
            last=link.stage.last,
            max_tokens=self.max_tokens,
            next=onward,
        )
        await self._tell(link.connection, opening)

    def _fault(self, arrival: Arrival) -> ChainBroken:
        """What an arrival other than the expected one says about whom."""
        message = arrival.message
        if isinstance(message, Fault):
            return self._broken(self._to_blame(arrival.peer_id, message), message.text or message.code.value)
        if isinstance(message, LinkClosed):
            return self._broken(arrival.peer_id, message.why)
        said = f"it sent {type(message).__name__} out of turn" if isinstance(message, Message) else str(message)
        return self._broken(arrival.peer_id, said)

    def _to_blame(self, reporter: str, fault: Fault) -> str:
        """A peer answers for itself, and may accuse only the one that it sends to."""
        ids = [link.stage.peer_id for link in self.chain]
        return reporter if fault.peer not in ids[ids.index(reporter) + 1 :][:1] else str(fault.peer)

    def _broken(self, peer_id: str, why: str) -> ChainBroken:
        layers = next(link.layers for link in self.chain if link.stage.peer_id == peer_id)
        return ChainBroken(peer_id, layers, why)
