"""One generation's session on every peer of a chain: the shell around `swarm.chain.protocol`."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from swarm.chain.answer import ChainAnswer
from swarm.chain.beginning import know_forks
from swarm.chain.blame import broken_by
from swarm.chain.events import Event, Lost, Outgoing, Received
from swarm.chain.protocol import ChainProtocol, Reply
from swarm.chain.stage import ChainLink
from swarm.chain.terms import Terms
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.windows import Window
from swarm.errors import ChainBroken, ChainSilent
from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.connection import Connection
from swarm.network.links.link import LinkClosed
from swarm.network.links.outbox import Outbox
from swarm.util.tasks import all_over, within
from swarm.wire.candidates import MAX_CANDIDATES, HeadTerms
from swarm.wire.fields import SESSION_ID_BYTES
from swarm.wire.messages import (
    Accepting,
    Hop,
    Opened,
    Refine,
    Refined,
    Result,
    Tapped,
    TermsChanged,
    WireMessage,
)
from swarm.wire.taps import MAX_TAPS, TapTerms
from swarm.wire.tensors import MAX_FRAME_TOKENS

OPEN_TIMEOUT_S = 8.0
# Peers copy what a session begins with when they have computed what the other one was sent: a chunk
# of a prompt may take a slow one this long.
FORK_TIMEOUT_S = 20.0
AGREE_TIMEOUT_S = 3.0  # for the last peer to take other terms
REFINE_TIMEOUT_S = 30.0  # a megabyte over a thin uplink, behind a prompt that is being computed
ACCEPT_TIMEOUT_S = 3.0  # for a peer to confirm whose frames it accepts
GRACE_S = 0.01  # in which an event loop that was held up delivers what has come meanwhile
# for saying goodbye; a peer that does not get it notices when the link is closed
CLOSE_TIMEOUT_S = 2.0
MAX_ARRIVALS = 256  # answers and faults that wait, beside one answer for each chunk of a prompt
# with each answer may come outputs of layers, from so many peers
MESSAGES_AN_ANSWER = 1 + MAX_TAPS


class ChainSession:
    """The session on every peer of a chain: connections, a queue and a timer.

    ``open`` / ``close`` come in pairs; use it as a context manager.

    One task may send and another one receive. While peers are replaced (`swarm.chain.failover`)
    neither may.

    Attributes:
        protocol: all that is known of the session.
        max_tokens: that every peer reserves room for.
        clock: seconds; the connections' clock as well. An answer took as long as it needed to
            arrive, however late it is read.
        bytes_sent, bytes_received: of all messages to peers, and of their answers, since the
            session began or rested.
    """

    def __init__(
        self,
        chain: Sequence[ChainLink],
        terms: Terms,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.protocol = ChainProtocol(os.urandom(SESSION_ID_BYTES), chain, terms)
        self.max_tokens = terms.max_tokens
        self.clock = clock
        self.bytes_sent = 0
        self.bytes_received = 0
        self._inbox = ArrivalQueue(
            MESSAGES_AN_ANSWER * (MAX_ARRIVALS + terms.max_tokens // MAX_FRAME_TOKENS),
            terms.most_waiting_bytes,
        )
        self._failure: ChainBroken | None = None  # that was met behind an answer
        self._outbox: Outbox[Sequence[Outgoing[ChainLink]]] = Outbox(self._tell_all)

    @property
    def chain(self) -> tuple[ChainLink, ...]:
        """Its peers now."""
        return self.protocol.chain

    @property
    def parties(self) -> Mapping[str, ChainLink]:
        """All peers that were ever part of the chain, by their ids."""
        return self.protocol.parties

    # Who takes part.

    async def open(self) -> None:
        """Open on all peers of the chain at once, and wait until all have answered.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        await self.join(self.chain)

    def fork(self, root: int, count: int, terms: Terms) -> "ChainSession":
        """Return a session on the same chain, for the caller to open, that begins with a copy of
        what the peers hold of this one; see `ChainProtocol.begin_with`."""
        forked = ChainSession(self.chain, terms, self.clock)
        forked.protocol.begin_with(self.protocol, root, count)
        return forked

    @property
    def can_be_forked(self) -> bool:
        """Whether another session may begin with any beginning of this one."""
        known = know_forks(link.record.protocol for link in self.chain)
        return known and self.protocol.beginning.can_be_forked

    async def join(
        self,
        links: Sequence[ChainLink],
        onward: Hop | None = None,
        epoch: int = 0,
        previous: str | None = None,
    ) -> None:
        """Open on peers that follow each other; see `ChainProtocol.join`.

        Raises:
            ChainBroken: if one refuses or does not answer in time.
        """
        openings = self.protocol.join(links, onward, epoch, previous)
        for link in links:
            link.connection.subscribe(self.protocol.id, self._inbox)
        await self._tell_all(openings)
        patience_s = OPEN_TIMEOUT_S if self.protocol.beginning.fork is None else FORK_TIMEOUT_S
        self.protocol.opened(links, await self.expect(Opened, links, patience_s))

    def admit(self, link: ChainLink, onward: Hop | None, taps: bool) -> None:
        """Take the messages of a peer on which the session is open; see `ChainProtocol.admit`."""
        self.protocol.admit(link, onward, taps)
        link.connection.subscribe(self.protocol.id, self._inbox)

    def leave(self, links: Collection[ChainLink]) -> None:
        """Take no more messages from peers that are no longer part of the chain, and forget a
        failure of theirs that was kept: one may come back, and has not failed again."""
        self.protocol.leave(links)
        if self._failure is not None and self._failure.peer_id in {each.peer_id for each in links}:
            self._failure = None
        for link in links:
            link.connection.unsubscribe(self.protocol.id)

    async def accept_from(self, link: ChainLink, *senders: str) -> None:
        """Have a peer accept frames from these peers, and no longer from others.

        Raises `ChainBroken` if it is gone.
        """
        if message := self.protocol.accept_from(link, senders):
            await self.tell(link, message)
            self.protocol.told(link, senders)

    async def accepted(self, link: ChainLink, sender: str) -> None:
        """Wait until a peer has confirmed that it accepts frames from another one.

        Raises `ChainBroken`.
        """
        while not self.protocol.accepts(link, sender):
            await self.expect(Accepting, [link], ACCEPT_TIMEOUT_S)

    # Windows and answers.

    async def send(self, window: Window) -> None:
        """Send a window into the chain.

        It is booked before anything is waited for, and what is booked is written: the wait may be
        cancelled.

        Raises:
            ChainBroken: if a peer is gone.
        """
        self._outbox.put(self.protocol.send(window, self.clock()))
        await self._outbox.written()

    async def agree(self, head: HeadTerms | None, taps: TapTerms | None = None) -> None:
        """Have the peers answer by these terms from now on; nothing is in flight.

        Args:
            head: None for a session that was opened without.

        Raises `ChainBroken`.
        """
        changes = self.protocol.change_terms(head, taps)
        self._inbox.most_bytes = self.protocol.most_waiting_bytes
        await self._tell_all(changes)
        await self.expect(TermsChanged, [each.to for each in changes], AGREE_TIMEOUT_S)

    async def refine(self, serial: int, told: CandidateRow) -> CandidateRow:
        """Return more of the prediction behind a token: `MAX_CANDIDATES` tokens, and then all.

        Args:
            told: what the last peer told of it before.

        Raises:
            ChainBroken: if a peer fails, or the last one does not answer in time.
            Implausible: if the answer cannot be one of this model, or contradicts what was told.
        """
        last = self.chain[-1]
        count = MAX_CANDIDATES if told.count < MAX_CANDIDATES else 0
        await self.tell(last, Refine(session=self.protocol.id, serial=serial, count=count))
        (refined,) = await self.expect(Refined, [last], REFINE_TIMEOUT_S)
        return self.protocol.refined(refined, serial, count, told)

    async def withhold(self) -> None:
        """Drop what was booked and is not written yet: it is about to be void."""
        await self._outbox.drop()

    async def receive(self, rows: int = 0) -> ChainAnswer:
        """Return the next answer, joined with those behind it that have come already.

        Answers to windows of an older epoch are skipped. A failure behind an answer is raised when
        the answer after it is asked for.

        Args:
            rows: that are answered; as soon as there are as many, none is joined.

        Raises:
            ChainBroken: if a peer of the chain fails.
            Implausible: if the answer cannot be one of this model.
            ChainSilent: if nothing comes for too long.
        """
        if failure := self._take_failure():
            raise failure
        answer = self.protocol.answer_set_aside()
        while answer is None:
            answer = self.protocol.answer(await self._next_event())
        answers = [answer]
        while sum(each.count for each in answers) < rows and (more := self._at_hand()):
            answers.append(more)
        return ChainAnswer.joined(answers)

    async def rest(self) -> None:
        """Discard all that is in flight, and begin a newer epoch, in which another text may go on.

        Raises:
            ChainBroken: if a peer is gone.
        """
        await self.withhold()
        cancels = self.protocol.rest()
        self.bytes_sent = 0
        self.bytes_received = 0
        await self._tell_all(cancels)

    def undisturbed(self) -> bool:
        """Return whether all peers are still there while the session rests, and none has said
        anything that matters."""
        if self._take_failure():
            return False
        while not self._inbox.empty():
            if self.protocol.disturbs(event_of(self._inbox.get_nowait())):
                return False
        return not any(link.connection.closed for link in self.chain)

    async def close(self) -> None:
        """Tell all peers that are still there; never fails, and takes `CLOSE_TIMEOUT_S` at most."""
        await self.withhold()
        goodbyes = self.protocol.close()
        for each in goodbyes:
            each.to.connection.unsubscribe(self.protocol.id)
        there = [each for each in goodbyes if not each.to.connection.closed]
        telling = asyncio.gather(
            *(each.to.connection.send(each.message) for each in there), return_exceptions=True
        )
        with contextlib.suppress(asyncio.TimeoutError):
            await within(CLOSE_TIMEOUT_S, telling)

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

    async def tell(self, link: ChainLink, message: WireMessage) -> None:
        """Send a message to one peer. Raises `ChainBroken` if it is gone."""
        try:
            await self.post(link.connection, message)
        except LinkClosed as error:
            raise broken_by(link, error.why) from None

    async def post(self, connection: Connection, message: WireMessage) -> int:
        """Send a message whose bytes count as the session's, and return its size. Raises
        `LinkClosed`."""
        nbytes = await connection.send(message)
        self.bytes_sent += nbytes
        return nbytes

    async def expect(
        self, kind: type[Reply], links: Sequence[ChainLink], seconds: float
    ) -> list[Reply]:
        """Return one message of a kind from each of some peers, in their order.

        Raises:
            ChainBroken: if one of them fails, or any other peer that takes part, or one does not
                answer in time.
        """
        replies = await self.poll(kind, links, seconds, stop_at_faults=True)
        for link in links:
            silent = broken_by(link, f"no answer in {seconds:g} s")
            reply = replies.get(link.peer_id, silent)
            if isinstance(reply, ChainBroken):
                raise reply
        return [reply for link in links if isinstance(reply := replies[link.peer_id], kind)]

    async def poll(
        self,
        kind: type[Reply],
        links: Sequence[ChainLink],
        seconds: float,
        stop_at_faults: bool = False,
    ) -> dict[str, Reply | ChainBroken]:
        """Return what peers answer within a time, by their ids: a message of a kind, or that they
        failed.

        Peers that do not answer are left out. Answers to windows are kept for `receive`.
        """
        replies: dict[str, Reply | ChainBroken] = {}

        async def gather() -> None:
            while any(link.peer_id not in replies for link in links):
                event = self._counted(await self._inbox.get())
                try:
                    if reply := self.protocol.reply(event, kind):
                        replies[event.peer_id] = reply
                except ChainBroken as failure:
                    if stop_at_faults:
                        raise
                    replies[failure.peer_id] = failure

        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, gather())
        return replies

    async def _tell_all(self, messages: Sequence[Outgoing[ChainLink]]) -> None:
        """Send to several peers at once; raise `ChainBroken` when all are told that can be."""
        await all_over(*(self.tell(each.to, each.message) for each in messages))

    def _at_hand(self) -> ChainAnswer | None:
        """Return an answer that has come, without waiting; keep a failure for `receive`."""
        try:
            answer = self.protocol.answer_set_aside()
            while answer is None and not self._inbox.empty():
                answer = self.protocol.answer(self._counted(self._inbox.get_nowait()))
        except ChainBroken as failure:
            self._failure = failure
            return None
        return answer

    def _take_failure(self) -> ChainBroken | None:
        """Return a failure that was kept, and keep it no more."""
        failure, self._failure = self._failure, None
        return failure

    async def _next_event(self) -> Event:
        """Return what comes next. Raises `ChainSilent` when the protocol's deadline has passed."""
        while self._inbox.empty():
            with contextlib.suppress(asyncio.TimeoutError):
                return self._counted(await within(max(self._left_s(), GRACE_S), self._inbox.get()))
            if self._left_s() <= 0:
                raise ChainSilent(self.protocol.patience_s)
        return self._counted(self._inbox.get_nowait())

    def _counted(self, arrival: Arrival) -> Event:
        if isinstance(arrival.message, (Result, Tapped, Refined)):
            self.bytes_received += arrival.nbytes
        return event_of(arrival)

    def _left_s(self) -> float:
        """Until the deadline; while nothing is in flight, until there may be one at the
        earliest."""
        deadline = self.protocol.deadline
        return self.protocol.patience_s if deadline is None else deadline - self.clock()


def event_of(arrival: Arrival) -> Event:
    """Return what came over a connection as an event of the protocol."""
    message = arrival.message
    if isinstance(message, WireMessage):
        return Received(arrival.peer_id, message, arrival.at)
    why = message.why if isinstance(message, LinkClosed) else str(message)
    return Lost(arrival.peer_id, why, arrival.at)
