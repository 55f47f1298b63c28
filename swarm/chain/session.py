"""One generation's session on every peer of a chain: windows out, results in."""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from torch import Tensor

from swarm.audit.guard import Guard
from swarm.chain.answer import Answer
from swarm.chain.failures import ChainBroken, ChainSilent, Implausible
from swarm.chain.in_flight import InFlight, NotAsked
from swarm.chain.members import Members
from swarm.chain.senders import Speakers
from swarm.chain.stage import ChainLink
from swarm.decoding.decoder import Window
from swarm.network.links.connection import Arrival
from swarm.network.links.link import LinkClosed
from swarm.network.links.outbox import Outbox
from swarm.util.tasks import all_over, within
from swarm.wire.messages import (
    SESSION_ID_BYTES,
    AcceptFrom,
    Accepting,
    Cancel,
    Close,
    Fault,
    FaultCode,
    Frame,
    Hop,
    Message,
    Open,
    Opened,
    Progress,
    Rerouted,
    Result,
)
from swarm.wire.tensors import MAX_FRAME_TOKENS

OPEN_TIMEOUT_S = 8.0
HEED_TIMEOUT_S = 3.0  # for a peer to confirm whom it listens to
GRACE_S = 0.01  # in which an event loop that was held up delivers what has come meanwhile
# for saying goodbye; a peer that did not hear it notices when the link is closed
CLOSE_TIMEOUT_S = 2.0
MAX_ARRIVALS = 256  # answers and faults that wait, beside one answer for each chunk of a prompt
LATE = (Progress, Rerouted, Accepting)  # answers that may come when nobody waits for them any more

Expected = TypeVar("Expected", bound=Message)


class ChainSession:
    """The session on every peer of a chain.

    ``open`` / ``close`` come in pairs; use it as a context manager.

    One task may send and another one receive. While peers are replaced (`swarm.chain.failover`)
    neither may.

    Times are seconds of ``clock``, which is the connections' as well: an answer took as long as it
    needed to arrive, however late it is asked for.

    Attributes:
        chain: its peers now.
        parties: all peers that were ever part of the chain, by their ids, and the last place of
            each: what the peers of the chain hold may rest on the work of any of them.
        branches: every peer takes several continuations of one token; known once it is open.

    Args:
        hidden_size: the model's width; an answer of another width is a failure of the peer that
            sent it.
        guard: what is not possible for this model is a failure of the chain.
    """

    def __init__(
        self,
        chain: Sequence[ChainLink],
        fingerprint: str,
        max_tokens: int,
        hidden_size: int | None = None,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.chain, self.fingerprint = tuple(chain), fingerprint
        self.parties = {link.peer_id: link for link in self.chain}
        self.max_tokens, self.hidden_size, self._guard = max_tokens, hidden_size, guard
        self.clock = clock
        self.id = os.urandom(SESSION_ID_BYTES)
        self.bytes_sent = self.bytes_received = 0
        self.branches = True
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue(
            MAX_ARRIVALS + max_tokens // MAX_FRAME_TOKENS
        )
        # results that came while others were waited for
        self._set_aside: deque[Arrival] = deque(maxlen=MAX_ARRIVALS)
        self._members = Members()
        self._speakers = Speakers()
        self._flight = InFlight()
        self._outbox: Outbox[Sequence[tuple[ChainLink, Message]]] = Outbox(self._tell_all)

    # Who takes part.

    async def open(self) -> None:
        """Open on all peers of the chain at once, and wait until all have answered.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        await self.join(self.chain)

    async def join(
        self,
        links: Sequence[ChainLink],
        onward: Hop | None = None,
        epoch: int = 0,
        previous: str | None = None,
    ) -> None:
        """Open on peers that follow each other; what the last one computes goes to ``onward``, or
        back to us.

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
        await self._tell_all(
            [(link, self.opening(link, hop, each, epoch)) for link, hop, each in places]
        )
        for message in await self.expect(Opened, links, OPEN_TIMEOUT_S):
            self.branches = self.branches and message.branches

    def admit(self, link: ChainLink, onward: Hop | None) -> None:
        """Hear a peer from now on, on which the session is open or about to be; it goes on to
        ``onward``."""
        self._members.admit(link, onward)
        link.connection.subscribe(self.id, self._inbox)

    def leads(self, link: ChainLink, onward: Hop | None) -> None:
        """Take note of who comes next to a peer: only that one may it accuse."""
        self._members.leads(link, onward)

    async def heed(self, link: ChainLink, *speakers: str) -> None:
        """Have a peer take frames from these peers, and no longer from others.

        Raises `ChainBroken` if it is gone.
        """
        if not self._speakers.knows(link.peer_id, speakers):
            self._speakers.telling(link.peer_id)
            await self.tell(link, AcceptFrom(session=self.id, speakers=speakers))
            self._speakers.told(link.peer_id, speakers)

    async def heeded(self, link: ChainLink, speaker: str) -> None:
        """Wait until a peer has confirmed that it takes frames from another one.

        Raises `ChainBroken`.
        """
        while not self._speakers.hears(link.peer_id, speaker):
            await self.expect(Accepting, [link], HEED_TIMEOUT_S)

    def leave(self, links: Collection[ChainLink]) -> None:
        """Hear nothing any more of peers that are no longer part of the chain."""
        self._members.leave(links)
        for link in links:
            link.connection.unsubscribe(self.id)

    def go_on(self, chain: Sequence[ChainLink], epoch: int) -> None:
        """The chain is another one from now on; nothing that was sent in an older epoch is waited
        for."""
        self.chain = tuple(chain)
        self.parties |= {link.peer_id: link for link in self.chain}
        self._flight.go_on(epoch)
        self._set_aside.clear()

    # Windows and answers.

    async def send(self, window: Window) -> None:
        """Send a window into the chain.

        If it begins a new epoch, a cancel overtakes what is on its way.

        It is booked before anything is waited for, and whatever is booked is written: who waits may
        be cancelled.

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
        messages: list[tuple[ChainLink, Message]] = [(first, frame)]
        if self._flight.sent(window, self.clock()):
            messages += [(each, Cancel(session=self.id, epoch=window.epoch)) for each in others]
        self._outbox.put(messages)
        await self._outbox.written()

    async def withhold(self) -> None:
        """Send nothing any more of what was booked and is not written yet: it is about to be
        void."""
        await self._outbox.drop()

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
                raise self.broken(
                    self._members[arrival.peer_id], "it answered, and is not the last one"
                )
            self.bytes_received += arrival.nbytes
            try:
                answered = self._flight.answered(result, arrival.at)
            except NotAsked as error:
                raise self.broken(self.chain[-1], str(error)) from None
            if self.hidden_size is not None and result.hidden.hidden != self.hidden_size:
                wide = f"its answer is {result.hidden.hidden} wide, not {self.hidden_size}"
                raise self.broken(self.chain[-1], wide)
            if answered is not None:
                hidden = self._plausible(result)
                stages = tuple(link.stage for link in self.chain)
                return Answer.of(result, hidden, arrival.at, answered, stages)

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        return self._flight.patience_s

    @property
    def last_sent(self) -> int:
        """The serial of the last token that was sent in the current epoch; 0 if there was none."""
        return self._flight.last_sent

    async def rest(self) -> None:
        """Nothing that is on its way is wanted any more, and a newer epoch begins, in which another
        text may go on.

        Raises:
            ChainBroken: if a peer is gone.
        """
        await self.withhold()
        self._flight.rest()
        self._set_aside.clear()
        self.bytes_sent = self.bytes_received = 0
        await self._tell_all(
            [(each, Cancel(session=self.id, epoch=self._flight.epoch)) for each in self.chain]
        )

    def undisturbed(self) -> bool:
        """Whether all peers are still there while the session rests, and none has said anything
        that matters."""
        while not self._inbox.empty():
            arrival = self._inbox.get_nowait()
            if self._concerns(arrival) and not isinstance(arrival.message, (Result, *LATE)):
                return False
        return not any(link.connection.closed for link in self.chain)

    async def close(self) -> None:
        """Tell all peers that are still there; never fails, and takes `CLOSE_TIMEOUT_S` at most."""
        await self.withhold()
        joined = self._members.links
        self.leave(joined)
        there = [link.connection for link in joined if not link.connection.closed]
        goodbyes = asyncio.gather(
            *(c.send(Close(session=self.id)) for c in there), return_exceptions=True
        )
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
            raise self.broken(link, error.why) from None

    async def _tell_all(self, messages: Sequence[tuple[ChainLink, Message]]) -> None:
        """Tell several peers at once; raises `ChainBroken` when all are told that can be."""
        await all_over(*(self.tell(*each) for each in messages))

    async def expect(
        self, kind: type[Expected], links: Sequence[ChainLink], seconds: float
    ) -> list[Expected]:
        """One message of a kind from each of some peers, in their order.

        Raises:
            ChainBroken: if one of them fails, or any other peer that takes part, or one does not
                answer in time.
        """
        heard = await self.poll(kind, links, seconds, stop_at_faults=True)
        for link in links:
            answer = heard.get(link.peer_id) or self.broken(link, f"no answer in {seconds:g} s")
            if isinstance(answer, ChainBroken):
                raise answer
        return [message for link in links if isinstance(message := heard[link.peer_id], kind)]

    async def poll(
        self,
        kind: type[Expected],
        links: Sequence[ChainLink],
        seconds: float,
        stop_at_faults: bool = False,
    ) -> dict[str, Expected | ChainBroken]:
        """What peers answer within a time, by their ids: a message of a kind, or that they failed.

        Whoever says nothing is left out. Results that come meanwhile are kept for `receive`.
        """
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
        self._flight.heard(self.clock())
        return heard

    def fault(self, arrival: Arrival) -> ChainBroken:
        """What an arrival other than the expected one says about whom.

        It must be news: see `_concerns`.
        """
        message, link = arrival.message, self._members[arrival.peer_id]
        if isinstance(message, Fault):
            blamed = self._members.to_blame(arrival.peer_id, message, self.chain) or link
            code = message.code if blamed == link else None
            return self.broken(blamed, message.text or message.code.value, code)
        if isinstance(message, LinkClosed):
            return self.broken(link, message.why)
        said = (
            f"it sent {type(message).__name__} out of turn"
            if isinstance(message, Message)
            else str(message)
        )
        return self.broken(link, said)

    @staticmethod
    def broken(link: ChainLink, why: str, code: FaultCode | None = None) -> ChainBroken:
        return ChainBroken(link.peer_id, link.layers, why, code)

    def opening(
        self, link: ChainLink, onward: Hop | None, previous: str | None, epoch: int
    ) -> Open:
        """What opens the session on one peer, which takes frames from us and the peer
        ``previous``."""
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
        """The next message of a peer that takes part; raises `ChainSilent` when that takes too
        long."""
        while True:
            if self._set_aside:
                arrival = self._set_aside.popleft()
            elif not self._inbox.empty():
                arrival = self._inbox.get_nowait()
            else:
                arrival = await self._wait()
            if self._concerns(arrival) and not isinstance(arrival.message, LATE):
                self._flight.heard(arrival.at)
                return arrival

    def _concerns(self, arrival: Arrival) -> bool:
        """Whether it is news: not from a peer that has left, nor about one, be it named or not.

        Whom it heeds is noted here.
        """
        message = arrival.message
        if isinstance(message, Accepting):
            self._speakers.confirms(arrival.peer_id, message.speakers)
        if arrival.peer_id not in self._members:
            return False
        if not isinstance(message, Fault):
            return True
        if message.peer is not None and message.peer not in self._members:
            return False
        return self._members.to_blame(arrival.peer_id, message, self.chain) is not None

    async def _wait(self) -> Arrival:
        while True:
            try:
                return await within(max(self._left_s(), GRACE_S), self._inbox.get())
            except asyncio.TimeoutError:
                if self._left_s() <= 0:
                    raise ChainSilent(self.patience_s) from None

    def _left_s(self) -> float:
        return self._flight.left_s(self.clock())

    def _plausible(self, result: Result) -> Tensor:
        hidden = result.hidden.unpack()
        objection = self._guard.objection(hidden) if self._guard else None
        if objection:
            last = self.chain[-1]
            raise Implausible(last.peer_id, last.layers, objection)
        return hidden
