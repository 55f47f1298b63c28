"""One generation's session on every peer of a chain: windows out, results in."""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from swarm.audit.guard import Guard
from swarm.chain import ChainBroken, ChainLink, ChainSilent, Implausible
from swarm.decoding.decoder import Window
from swarm.network.connection import Arrival
from swarm.network.link import LinkClosed
from swarm.network.tasks import within
from swarm.results import Measured
from swarm.speakers import Speakers
from swarm.wire.messages import (
    SESSION_ID_BYTES,
    Cancel,
    Close,
    Fault,
    FaultCode,
    Frame,
    Heed,
    Heeding,
    Hop,
    Message,
    Open,
    Opened,
    Rerouted,
    Result,
    Standing,
)
from swarm.wire.tensors import MAX_FRAME_TOKENS

OPEN_TIMEOUT_S = 8.0
HEED_TIMEOUT_S = 3.0  # for a peer to confirm whom it listens to
PROMPT_TIMEOUT_S = 60.0  # before a loop was measured: a full frame of a prompt on a slow chain
HANG_LOOPS, LEAST_HANG_S = 2.0, 0.5  # after so many loops, and so long, without an answer, something may hang
CLOSE_TIMEOUT_S = 2.0  # for saying goodbye; a peer that did not hear it notices when the link is closed
MAX_ARRIVALS = 256  # answers and faults that wait, beside one answer for each chunk of a prompt
LATE = (Standing, Rerouted, Heeding)  # answers that may come when nobody waits for them any more
FADE = 0.8  # what older loops still count for how long the next one may take

Expected = TypeVar("Expected", bound=Message)


@dataclass(frozen=True)
class Answer:
    """The chain's answer to a window, or to several in a row that a busy peer computed together."""

    epoch: int
    first: int  # serial
    count: int  # tokens
    hidden: Tensor  # [tail, hidden], final hidden states before the final norm
    measured: Measured  # from sending the last of the windows
    windows: tuple[Window, ...]  # that it answers, as they were sent

    @property
    def rows(self) -> Iterator[tuple[Window, Tensor]]:
        """Each window with its own part of ``hidden``: ``[window.tail, hidden]``, empty if nothing was asked of it."""
        parts = torch.split(self.hidden, [window.tail for window in self.windows])
        return zip(self.windows, parts, strict=True)


class ChainSession:
    """The session on every peer of a chain. ``open`` / ``close`` come in pairs; use it as a context manager.

    One task may send and another one receive. While peers are replaced (`swarm.failover`) neither may.

    Attributes:
        chain: its peers now.
        parties: all peers that were ever part of the chain, by their ids, and the last place of each: what the peers of
            the chain hold may rest on the work of any of them.
        branches: every peer takes several continuations of one token; known once it is open.

    Args:
        hidden_size: the model's width; an answer of another width is a failure of the peer that sent it.
        guard: what is not possible for this model is a failure of the chain.
    """

    def __init__(
        self,
        chain: Sequence[ChainLink],
        fingerprint: str,
        max_tokens: int,
        hidden_size: int | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.chain, self.fingerprint = tuple(chain), fingerprint
        self.parties = {link.peer_id: link for link in self.chain}
        self.max_tokens, self.hidden_size, self._guard = max_tokens, hidden_size, guard
        self.id = os.urandom(SESSION_ID_BYTES)
        self.bytes_sent = self.bytes_received = 0
        self.branches = True
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue(MAX_ARRIVALS + max_tokens // MAX_FRAME_TOKENS)
        self._set_aside: deque[Arrival] = deque(maxlen=MAX_ARRIVALS)  # results that came while others were waited for
        self._joined: dict[str, ChainLink] = {}  # all whose messages we take
        self._next: dict[str, str] = {}  # who sends to whom
        self._speakers = Speakers()
        self._sent: deque[tuple[Window, float]] = deque()  # windows in flight, and when they were sent
        self._epoch = 0  # of the last window
        self._heard_at = 0.0
        self._loop_s: float | None = None  # fading mean, once a loop of decoding was measured

    # Who takes part.

    async def open(self) -> None:
        """Open on all peers of the chain at once, and wait until all have answered.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        await self.join(self.chain)

    async def join(
        self, links: Sequence[ChainLink], onward: Hop | None = None, epoch: int = 0, previous: str | None = None
    ) -> None:
        """Open on peers that follow each other; what the last one computes goes to ``onward``, or back to us.

        Args:
            previous: the peer that sends to the first of them; None if we do.
            epoch: what may still be on its way from older ones means nothing to them.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        hops = [*(link.hop for link in links[1:]), onward]
        before = [previous, *(link.peer_id for link in links[:-1])]
        places = list(zip(links, hops, before, strict=True))
        for link, hop, _ in places:
            self.admit(link, hop)
        opened = asyncio.gather(
            *(self.tell(link, self.opening(link, hop, each, epoch)) for link, hop, each in places),
            return_exceptions=True,
        )
        for error in filter(None, await opened):
            raise error
        for message in await self.expect(Opened, links, OPEN_TIMEOUT_S):
            self.branches = self.branches and message.branches

    def admit(self, link: ChainLink, onward: Hop | None) -> None:
        """Hear a peer from now on, on which the session is open or about to be; it goes on to ``onward``."""
        self._joined[link.peer_id] = link
        link.connection.subscribe(self.id, self._inbox)
        self.leads(link, onward)

    def leads(self, link: ChainLink, onward: Hop | None) -> None:
        """Take note of who comes next to a peer: only that one may it accuse."""
        self._next.pop(link.peer_id, None)
        if onward is not None:
            self._next[link.peer_id] = onward.peer_id

    async def heed(self, link: ChainLink, *speakers: str) -> None:
        """Have a peer take frames from these peers, and no longer from others. Raises `ChainBroken` if it is gone."""
        if not self._speakers.knows(link.peer_id, speakers):
            await self.tell(link, Heed(session=self.id, speakers=speakers))
            self._speakers.told(link.peer_id, speakers)

    async def heeded(self, link: ChainLink, speaker: str) -> None:
        """Wait until a peer has confirmed that it takes frames from another one. Raises `ChainBroken`."""
        while not self._speakers.hears(link.peer_id, speaker):
            await self.expect(Heeding, [link], HEED_TIMEOUT_S)

    def leave(self, links: Collection[ChainLink]) -> None:
        """Hear nothing any more of peers that are no longer part of the chain."""
        for link in links:
            self._joined.pop(link.peer_id, None)
            link.connection.unsubscribe(self.id)

    def go_on(self, chain: Sequence[ChainLink], epoch: int) -> None:
        """The chain is another one from now on; nothing that was sent in an older epoch is waited for."""
        self.chain, self._epoch = tuple(chain), epoch
        self.parties |= {link.peer_id: link for link in self.chain}
        self._sent.clear()
        self._set_aside.clear()

    # Windows and answers.

    async def send(self, window: Window) -> None:
        """Send a window into the chain. If it begins a new epoch, a cancel overtakes what is on its way.

        Raises:
            ChainBroken: if a peer is gone.
        """
        first, *others = self.chain
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
        await self.tell(first, frame)
        if window.epoch > self._epoch:
            self._epoch = window.epoch
            cancel = Cancel(session=self.id, epoch=window.epoch)
            await asyncio.gather(*(self.tell(each, cancel) for each in others))

    async def receive(self) -> Answer:
        """The next answer; those to windows of an older epoch are skipped.

        Raises:
            ChainBroken: if a peer of the chain fails.
            Implausible: if the answer cannot be one of this model.
            ChainSilent: if nothing comes for too long.
        """
        while True:
            arrival = await self._arrival()
            result = arrival.message
            if not isinstance(result, Result):
                raise self.fault(arrival)
            if arrival.peer_id != self.chain[-1].peer_id:
                raise self.broken(arrival.peer_id, "it answered, and is not the last one")
            self.bytes_received += arrival.nbytes
            windows, sent_at = self._answered(result)
            if self.hidden_size is not None and result.hidden.hidden != self.hidden_size:
                wide = f"its answer is {result.hidden.hidden} wide, not {self.hidden_size}"
                raise self.broken(arrival.peer_id, wide)
            if sent_at is not None:
                hidden = self._plausible(result)
                loop_s = time.perf_counter() - sent_at
                if result.hidden.tokens == result.count:  # a prompt's loops say nothing of decoding
                    self._loop_s = loop_s if self._loop_s is None else FADE * self._loop_s + (1 - FADE) * loop_s
                measured = Measured(loop_s * 1e3, result.compute_ms, result.queue_ms)
                return Answer(result.epoch, result.first, result.count, hidden, measured, windows)

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        return PROMPT_TIMEOUT_S if self._loop_s is None else max(HANG_LOOPS * self._loop_s, LEAST_HANG_S)

    @property
    def last_sent(self) -> int:
        """The serial of the last token that was sent in the current epoch; 0 if there was none."""
        return next((w.first + len(w.tokens) - 1 for w, _ in reversed(self._sent) if w.epoch == self._epoch), 0)

    async def rest(self) -> None:
        """Nothing that is on its way is wanted any more, and a newer epoch begins, in which another text may go on.

        Raises:
            ChainBroken: if a peer is gone.
        """
        self.go_on(self.chain, self._epoch + 1)
        self.bytes_sent = self.bytes_received = 0
        self._loop_s = None
        await asyncio.gather(*(self.tell(each, Cancel(session=self.id, epoch=self._epoch)) for each in self.chain))

    def undisturbed(self) -> bool:
        """Whether all peers are still there while the session rests, and none has said anything that matters."""
        while not self._inbox.empty():
            arrival = self._inbox.get_nowait()
            if self._concerns(arrival) and not isinstance(arrival.message, (Result, *LATE)):
                return False
        return not any(link.connection.closed for link in self.chain)

    async def close(self) -> None:
        """Tell all peers that are still there; never fails, and takes `CLOSE_TIMEOUT_S` at most."""
        joined = list(self._joined.values())
        self.leave(joined)
        there = [link.connection for link in joined if not link.connection.closed]
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

    # Other messages.

    async def tell(self, link: ChainLink, message: Message) -> None:
        """Say something to one peer. Raises `ChainBroken` if it is gone."""
        try:
            self.bytes_sent += await link.connection.send(message)
        except LinkClosed as error:
            raise self.broken(link.peer_id, error.why) from None

    async def expect(self, kind: type[Expected], links: Sequence[ChainLink], seconds: float) -> list[Expected]:
        """One message of a kind from each of some peers, in their order.

        Raises:
            ChainBroken: if one of them fails, or any other peer that takes part, or one does not answer in time.
        """
        heard = await self.poll(kind, links, seconds, stop_at_faults=True)
        for link in links:
            answer = heard.get(link.peer_id) or self.broken(link.peer_id, f"no answer in {seconds:g} s")
            if isinstance(answer, ChainBroken):
                raise answer
        return [message for link in links if isinstance(message := heard[link.peer_id], kind)]

    async def poll(
        self, kind: type[Expected], links: Sequence[ChainLink], seconds: float, stop_at_faults: bool = False
    ) -> dict[str, Expected | ChainBroken]:
        """What peers answer within a time, by their ids: a message of a kind, or that they failed. Whoever says nothing
        is left out. Results that come meanwhile are kept for `receive`."""
        heard: dict[str, Expected | ChainBroken] = {}

        async def gather() -> None:
            while any(link.peer_id not in heard for link in links):
                arrival = await self._inbox.get()
                if not self._concerns(arrival):
                    continue
                if isinstance(arrival.message, Result):
                    self._set_aside.append(arrival)
                    continue
                if isinstance(arrival.message, kind):
                    heard[arrival.peer_id] = arrival.message
                    continue
                if isinstance(arrival.message, LATE):
                    continue
                failure = self.fault(arrival)
                if stop_at_faults:
                    raise failure
                heard[failure.peer_id] = failure

        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, gather())
        self._heard_at = time.perf_counter()
        return heard

    def fault(self, arrival: Arrival) -> ChainBroken:
        """What an arrival other than the expected one says about whom."""
        message = arrival.message
        if isinstance(message, Fault):
            blamed = self._to_blame(arrival.peer_id, message)
            code = message.code if blamed == arrival.peer_id else None
            return self.broken(blamed, message.text or message.code.value, code)
        if isinstance(message, LinkClosed):
            return self.broken(arrival.peer_id, message.why)
        said = f"it sent {type(message).__name__} out of turn" if isinstance(message, Message) else str(message)
        return self.broken(arrival.peer_id, said)

    def broken(self, peer_id: str, why: str, code: FaultCode | None = None) -> ChainBroken:
        return ChainBroken(peer_id, self._joined[peer_id].layers, why, code)

    def opening(self, link: ChainLink, onward: Hop | None, previous: str | None, epoch: int) -> Open:
        """What opens the session on one peer, which takes frames from us and the peer ``previous``."""
        self._speakers.opens(link.peer_id, previous)
        return Open(
            session=self.id,
            fingerprint=self.fingerprint,
            first=link.stage.first,
            last=link.stage.last,
            max_tokens=self.max_tokens,
            next=onward,
            previous=previous,
            epoch=epoch,
        )

    async def _arrival(self) -> Arrival:
        """The next message of a peer that takes part; raises `ChainSilent` when that takes too long."""
        while True:
            if self._set_aside:
                arrival = self._set_aside.popleft()
            elif not self._inbox.empty():
                arrival = self._inbox.get_nowait()
            else:
                arrival = await self._wait()
            if self._concerns(arrival) and not isinstance(arrival.message, LATE):
                self._heard_at = time.perf_counter()
                return arrival

    def _concerns(self, arrival: Arrival) -> bool:
        """Whether it is news: not from a peer that has left, nor about one. Whom it heeds is noted here."""
        if isinstance(arrival.message, Heeding):
            self._speakers.confirms(arrival.peer_id, arrival.message.speakers)
        about = arrival.message.peer if isinstance(arrival.message, Fault) else None
        return arrival.peer_id in self._joined and (about is None or about in self._joined)

    async def _wait(self) -> Arrival:
        while True:
            try:
                return await within(self._left_s(), self._inbox.get())
            except asyncio.TimeoutError:
                if self._left_s() <= 0:
                    raise ChainSilent(self.patience_s) from None

    def _left_s(self) -> float:
        """How long the next answer may still take; as long as ever while nothing is in flight."""
        oldest = next((sent_at for window, sent_at in self._sent if window.epoch == self._epoch), None)
        if oldest is None:
            return self.patience_s
        return max(oldest, self._heard_at) + self.patience_s - time.perf_counter()

    def _answered(self, result: Result) -> tuple[tuple[Window, ...], float | None]:
        """Strike off the windows that a result answers; returns them and when the last was sent, None if it is stale.

        Windows of older epochs may have died on their way, and need no answer.
        """
        if result.epoch < self._epoch and (not self._sent or result.epoch < self._sent[0][0].epoch):
            return (), None
        while self._sent and self._sent[0][0].epoch < result.epoch:
            self._sent.popleft()
        windows: list[Window] = []
        tokens = tail = 0
        sent_at = None
        while self._sent and tokens < result.count and self._sent[0][0].first == result.first + tokens:
            window, sent_at = self._sent.popleft()
            windows.append(window)
            tokens, tail = tokens + len(window.tokens), tail + window.tail
        if sent_at is None or window.epoch != result.epoch or (tokens, tail) != (result.count, result.hidden.tokens):
            raise self.broken(self.chain[-1].peer_id, "it answered what was not asked")
        return tuple(windows), sent_at if result.epoch == self._epoch else None

    def _plausible(self, result: Result) -> Tensor:
        hidden = result.hidden.unpack()
        objection = self._guard.objection(hidden) if self._guard else None
        if objection:
            last = self.chain[-1]
            raise Implausible(last.peer_id, last.layers, objection)
        return hidden

    def _to_blame(self, reporter: str, fault: Fault) -> str:
        """A peer answers for itself, and may accuse only the one that it sends to; or the one that sends to it, of
        hidden states that are not finite."""
        if fault.code is FaultCode.NOT_FINITE:
            before = next((link.peer_id for link in self.chain if self._next.get(link.peer_id) == reporter), reporter)
            return before if fault.peer in (None, before) else reporter
        return fault.peer if fault.peer is not None and self._next.get(reporter) == fault.peer else reporter
