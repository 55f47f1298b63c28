"""Peers that stand by while a text is written, one for each stage of the chain where one is found.

Each is given what its stage holds, and then all that its stage is given, in the background: by the
peer before, or by the client for the first stage. So it can take the place of a failed peer at
once. Nothing of this disturbs the generation: messages of spares go to an inbox of their own, and a
spare that fails or falls behind is left. `swarm.chain.spares` is the book of them; this is its
shell: connections, feeds, and two tasks.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

from swarm.chain.answer import ChainAnswer
from swarm.chain.sent_tokens import SentTokens
from swarm.chain.session import ChainSession, event_of
from swarm.chain.spares import Spare, Spares
from swarm.chain.stage import ChainLink, take_leave
from swarm.chain.terms import REPLY_BYTES
from swarm.decoding.windows import NOTHING_HELD, ResumePoint, Window
from swarm.errors import ChainBroken
from swarm.network.links.arrivals import Arrival, ArrivalQueue
from swarm.network.links.connection import Connection
from swarm.network.links.link import LinkClosed
from swarm.network.links.replica_feed import ReplicaFeed
from swarm.util.tasks import all_over, end, within
from swarm.wire.fields import SessionId
from swarm.wire.messages import Close, Hop, Mirror, Probe, Reroute, WireMessage

LOOK_S = 0.5  # between two looks at how far every spare has come
MAX_ARRIVALS = 256  # messages of spares that wait

log = logging.getLogger(__name__)


class SpareFinder(Protocol):
    """What has to be known of the swarm."""

    async def spare(
        self, first: int, last: int, avoid: Collection[str], dtype: str
    ) -> ChainLink | None:
        """Return a peer that serves all of the layers ``[first, last)``, none of ``avoid``; None if
        there is none. One that computes in ``dtype`` is preferred."""
        ...


class Standby:
    """All peers that stand by in one session. ``close`` it before the session.

    While a chain is repaired nothing goes on in the background: `rest` begins that, and the next
    answer ends it.

    Args:
        wanted: without it nothing is ever done.
        held: what the chain holds already.
    """

    def __init__(
        self,
        session: ChainSession,
        finder: SpareFinder,
        wanted: bool,
        held: ResumePoint = NOTHING_HELD,
    ) -> None:
        self._session = session
        self._id = session.protocol.id
        self._finder = finder
        self._wanted = wanted
        self._clock = session.clock
        self._spares = Spares[ChainLink]()
        self._feeds: dict[Spare[ChainLink], ReplicaFeed[_FeedLink]] = {}  # of the client's own
        self._inbox = ArrivalQueue(MAX_ARRIVALS, REPLY_BYTES)
        self._sent = SentTokens(self._id, held)
        self._epoch = 0  # of the last answer
        self._answered = 0  # its last serial
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> tuple[ChainLink, ...]:
        """The peers that could take a place now."""
        return self._spares.ready(self._clock())

    @property
    def peer_ids(self) -> set[str]:
        return self._spares.peer_ids

    def sent(self, window: Window) -> None:
        """Send a window to the spare of the chain's first peer, too; never waits."""
        if self._wanted:
            frame = self._sent.add(window)
            for feed in self._feeds.values():
                feed.put(frame)

    def answered(self, answer: ChainAnswer) -> None:
        """Note that the text went on by an answer of the chain; go on in the background."""
        self._epoch = answer.epoch
        self._answered = answer.last
        if self._wanted and not self._tasks:
            self._tasks = [asyncio.create_task(self._seek()), asyncio.create_task(self._watch())]

    async def rest(self) -> None:
        """Do nothing in the background, until the next answer.

        Leave the spares whose messages were interrupted: they may have got them or not.
        """
        await end(*self._tasks)
        self._tasks.clear()
        self._spares.seek_again()
        await self._leave([spare for spare in self._spares if spare.unsure])

    async def close(self) -> None:
        """Leave all spares. Never fails."""
        await self.rest()
        await self.leave_all()

    async def leave_all(self) -> None:
        """Leave all spares: their peers are needed elsewhere."""
        await self._leave(list(self._spares))

    # When peers of the chain fail.

    async def follow(self, broken: Collection[str], held: ResumePoint) -> None:
        """The chain has changed, or these of its peers have failed: leave the spares that are not
        fed any more, and tell the others if they would send to another peer now."""
        left, rerouted = self._spares.follow(self._session.chain, broken)
        late = "its link takes nothing"
        telling = [
            self._tell_soon(spare, go_on_to(spare.onward, self._id, held), late)
            for spare in rerouted
            if spare.onward is not None
        ]
        await asyncio.gather(self._leave(left), *telling)

    async def take(self, member: ChainLink, broken: Collection[str]) -> Spare[ChainLink] | None:
        """Return the spare that can take the place of a peer now, which is one of those that
        failed; it is not one of the spares any more. A spare that cannot is left."""
        while not self._inbox.empty():
            self._hear(self._inbox.get_nowait())
        spare = self._spares.of(member)
        if spare is None:
            return None
        if not spare.could_step_in(self._clock(), broken):
            await self._leave([spare])
            return None
        self._spares.remove(spare)
        return spare

    async def finish_feed(self, spare: Spare[ChainLink]) -> None:
        """Wait until a spare that was taken has been sent all that the client feeds it.

        Raises:
            LinkClosed: if it could not be.
        """
        if (feed := self._feeds.get(spare)) is not None:
            await feed.finish()

    async def end_feed(self, spare: Spare[ChainLink]) -> None:
        """Feed a spare no more."""
        if (feed := self._feeds.get(spare)) is not None:
            await feed.close()
            del self._feeds[spare]

    async def name_senders(self) -> None:
        """Have every peer of the chain accept frames from the peer before it and from that one's
        spare, which can then take the place at once. Raises `ChainBroken`."""
        senders = self._spares.senders(self._session.chain)
        await all_over(*(self._session.accept_from(link, *named) for link, named in senders))

    # In the background.

    async def _seek(self) -> None:
        """Find spares for the stages that have none."""
        while True:
            for place in range(len(self._session.chain)):
                try:
                    await self._seek_for(place)
                except Exception:
                    log.exception("no peer that could stand by was found")
            await asyncio.sleep(LOOK_S)

    async def _watch(self) -> None:
        """Ask the spares how far they have come, and take their answers."""
        while True:
            await self._look()
            with suppress(ChainBroken):  # then the chain is about to be repaired
                await self.name_senders()
            await self._listen()

    async def _seek_for(self, place: int) -> None:
        member = self._session.chain[place]
        avoid = self._spares.seek(place, self._session.chain, self._clock())
        if avoid is None:
            return
        link = await self._finder.spare(*member.layers, avoid, member.record.dtype)
        if link is not None:
            await self._join(place, link)

    async def _join(self, place: int, link: ChainLink) -> None:
        spare = self._spares.add(place, self._session.chain, link, self._clock())
        link.connection.subscribe(self._id, self._inbox)
        previous = spare.feeder.peer_id if spare.feeder is not None else None
        opening = self._session.protocol.opening(link, spare.onward, previous, self._epoch)
        with spare.telling():
            await self._tell(spare, opening)

    async def _look(self) -> None:
        """Leave the spares that failed, and ask the others how far they have come."""
        for spare, feed in self._feeds.items():
            if feed.over:
                spare.failure = spare.failure or "it was not told everything"
        left, asked = self._spares.look(self._clock(), self._answered)
        for spare in left:
            log.info("the peer ...%s stands by no more: %s", spare.link.peer_id[-8:], spare.failure)
        probe = Probe(session=self._id)
        await asyncio.gather(self._leave(left), *(self._tell_soon(each, probe) for each in asked))

    async def _listen(self) -> None:
        """Take what comes, until it is time for the next look."""
        until = self._clock() + LOOK_S
        with suppress(asyncio.TimeoutError):
            while True:
                self._hear(await within(max(until - self._clock(), 0.0), self._inbox.get()))
                for spare in self._spares:
                    if spare.opened and not spare.fed:
                        await self._feed(spare)

    def _hear(self, arrival: Arrival) -> None:
        self._spares.hear(event_of(arrival), self._session.protocol.branches)

    async def _feed(self, spare: Spare[ChainLink]) -> None:
        """Have a spare be sent everything, from now on."""
        self._spares.begin_feed(spare, self._answered)
        if spare.feeder is None:
            line = _FeedLink(self._session, spare.link.connection)
            self._feeds[spare] = ReplicaFeed(line.itself, lambda _: None, self._sent.replay())
        else:
            with suppress(ChainBroken), spare.telling():  # then the chain is about to be repaired
                await self._session.tell(spare.feeder, Mirror(session=self._id, to=spare.link.hop))
        await self._tell(spare, Probe(session=self._id))

    async def _tell(self, spare: Spare[ChainLink], message: WireMessage) -> None:
        try:
            await self._session.post(spare.link.connection, message)
        except LinkClosed as error:
            spare.failure = error.why

    async def _tell_soon(
        self, spare: Spare[ChainLink], message: WireMessage, or_else: str = ""
    ) -> None:
        """Send a message if the spare's link takes it before long.

        Otherwise the spare has failed, if ``or_else`` says why.
        """
        try:
            await within(LOOK_S, self._tell(spare, message))
        except asyncio.TimeoutError:
            spare.failure = spare.failure or or_else

    async def _leave(self, spares: Sequence[Spare[ChainLink]]) -> None:
        await asyncio.gather(*(self._leave_one(spare) for spare in spares))

    async def _leave_one(self, spare: Spare[ChainLink]) -> None:
        """The other half of `_join`: tell the spare, and its feeder, if they are still there."""
        spare.failure = spare.failure or "it is left"
        spare.link.connection.unsubscribe(self._id)
        with spare.telling():
            await self.end_feed(spare)
            goodbyes: list[tuple[ChainLink, WireMessage]] = [(spare.link, Close(session=self._id))]
            if spare.fed and spare.feeder in self._session.chain:
                goodbyes.append((spare.feeder, Mirror(session=self._id)))
            await asyncio.gather(
                *(take_leave(link.connection, message) for link, message in goodbyes)
            )
        self._spares.remove(spare)


def go_on_to(hop: Hop, session: SessionId, held: ResumePoint) -> Reroute:
    """Return what tells a peer who comes next from now on, and holds everything already."""
    return Reroute(session=session, epoch=held.epoch, root=held.root, next=hop, replay=None)


class _FeedLink:
    """A connection whose bytes count as the session's."""

    def __init__(self, session: ChainSession, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    async def itself(self) -> "_FeedLink":
        return self

    async def send(self, message: WireMessage) -> int:
        """Raises `LinkClosed`."""
        return await self._session.post(self._connection, message)
