"""Peers that stand by while a text is written, one for each stage of the chain where there is one
to be had.

Each is given what its stage holds, and then all that its stage is given, in the background: by the
peer before, or by us for the first stage. So it can take the place of a failed peer at once.
Nothing of this disturbs the generation: what comes from peers that stand by goes to an inbox of its
own, and whoever fails or falls behind is left.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from swarm.chain.answer import ChainAnswer
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink, take_leave
from swarm.decoding.windows import NOTHING_HELD, ResumePoint, Window
from swarm.errors import ChainBroken
from swarm.network.links.connection import Arrival, Connection
from swarm.network.links.link import LinkClosed
from swarm.network.links.replica_feed import ReplicaFeed
from swarm.util.tasks import all_over, end, within
from swarm.wire.messages import (
    Close,
    Fault,
    Frame,
    Hop,
    Message,
    Mirror,
    Opened,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    SessionId,
)
from swarm.wire.token_tree import ReplayChunk, TokenTree, replayed

LOOK_S = 0.5  # between two looks at how far everybody has come
SEEK_S = 10.0  # between two searches for a peer that could stand by for a stage
CATCH_UP_S = 60.0  # whoever is not up to date for so long is left
HEARD_S = 5.0  # whoever said nothing for so long may hang
MAX_NEWS = 256

log = logging.getLogger(__name__)


class SpareFinder(Protocol):
    """What has to be known of the swarm."""

    async def spare(self, first: int, last: int, avoid: Collection[str]) -> ChainLink | None:
        """A peer that serves all of the layers ``[first, last)``, none of ``avoid``; None if there
        is none."""
        ...


@dataclass
class Spare:
    """A peer that stands by, and how far it has come."""

    link: ChainLink
    member: str  # for whom: a peer of the chain
    feeder: ChainLink | None  # who tells it everything: the peer before, or None for us
    onward: Hop | None  # where it would go on to
    since: float  # when it was up to date last, or began, by the session's clock
    feed: "ReplicaFeed[_Counted] | None" = None  # of ours
    opened: bool = False
    fed: bool = False
    reaches: bool = True  # its onward peer, as far as it has told
    ready: bool = False  # it holds what was answered lately
    failure: str = ""
    # serials that were answered when it was asked the last two times
    asked: tuple[int, int] = (0, 0)
    unsure: bool = False  # it, or the peer that feeds it, is being told something

    def could_step_in(self, now: float, broken: Collection[str] = ()) -> bool:
        """Whether it could take the place now; that its onward peer is one of those that failed is
        no obstacle."""
        up_to_date = self.ready and not self.failure and now - self.since < HEARD_S
        return up_to_date and (
            self.reaches or (self.onward is not None and self.onward.peer_id in broken)
        )


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
        self._session, self._finder, self._wanted = session, finder, wanted
        self._clock = session.clock
        self._spares: dict[str, Spare] = {}  # by the peers that they stand by for
        self._spent: set[str] = set()  # peers that failed to stand by, and are not tried again
        self._sought_at: dict[tuple[int, int], float] = {}  # by layers
        self._news: asyncio.Queue[Arrival] = asyncio.Queue(MAX_NEWS)
        self._said = _Said(session.protocol.id, held)
        self._epoch = self._answered = 0  # of the last answer, and its last serial
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> tuple[ChainLink, ...]:
        """Whoever could take a place now."""
        now = self._clock()
        return tuple(spare.link for spare in self._spares.values() if spare.could_step_in(now))

    @property
    def peer_ids(self) -> set[str]:
        return {spare.link.peer_id for spare in self._spares.values()}

    def sent(self, window: Window) -> None:
        """A window is about to be sent into the chain: who stands by for its first peer is told as
        well."""
        if self._wanted:
            frame = self._said.frame(window)
            for spare in self._spares.values():
                if spare.feed is not None:
                    spare.feed.put(frame)

    def answered(self, answer: ChainAnswer) -> None:
        """The text went on by an answer of the chain as it is now."""
        self._epoch, self._answered = answer.epoch, answer.last
        if self._wanted and not self._tasks:
            self._tasks = [asyncio.create_task(self._seek()), asyncio.create_task(self._watch())]

    async def rest(self) -> None:
        """Do nothing in the background, until the next answer.

        What was interrupted is given up: it is not known how much of it a peer has heard.
        """
        await end(*self._tasks)
        self._tasks.clear()
        self._sought_at.clear()
        await self._leave_all([spare for spare in self._spares.values() if spare.unsure])

    async def close(self) -> None:
        """Leave everybody. Never fails."""
        await self.rest()
        await self.leave_all()

    # When peers of the chain fail.

    async def follow(self, broken: Collection[str], held: ResumePoint) -> None:
        """The chain has changed, or these of its peers have failed: leave whoever is told nothing
        any more, and let the others know if they would go on to another peer now."""
        chain = self._session.chain
        places = {link.peer_id: place for place, link in enumerate(chain)}
        left: list[Spare] = []
        others: list[tuple[Spare, Message]] = []
        for spare in self._spares.values():
            place = places.get(spare.member)
            feeder = chain[place - 1] if place else None
            if (
                place is None
                or feeder != spare.feeder
                or (feeder is not None and feeder.peer_id in broken)
            ):
                left.append(spare)
                continue
            behind = chain[place + 1] if place + 1 < len(chain) else None
            if behind is not None and behind.peer_id not in broken and behind.hop != spare.onward:
                spare.onward, spare.reaches = behind.hop, False
                others.append((spare, goes_on_to(behind.hop, self._session, held)))
        late = "its link takes nothing"
        await asyncio.gather(
            self._leave_all(left), *(self._tell_soon(*each, late) for each in others)
        )

    async def take(self, member: ChainLink, broken: Collection[str]) -> Spare | None:
        """Whoever can take the place of a peer now, which is one of these that failed; it is not
        one that stands by any more. Whoever stands by and cannot is left."""
        while not self._news.empty():
            self._hear(self._news.get_nowait())
        spare = self._spares.get(member.peer_id)
        if spare is None:
            return None
        if not spare.could_step_in(self._clock(), broken):
            await self._leave(spare)
            return None
        del self._spares[member.peer_id]
        return spare

    async def name_senders(self) -> None:
        """Have every peer of the chain take frames from the one before, and from whoever stands by
        for that one: it can then take the place at once. Raises `ChainBroken`."""
        telling = []
        for before, link in pairwise(self._session.chain):
            spare = self._spares.get(before.peer_id)
            others = () if spare is None else (spare.link.peer_id,)
            telling.append(self._session.accept_from(link, before.peer_id, *others))
        await all_over(*telling)

    async def leave_all(self) -> None:
        """Their peers are needed elsewhere."""
        await self._leave_all(list(self._spares.values()))

    # In the background.

    async def _seek(self) -> None:
        """Find peers for the stages that have none."""
        while True:
            for place in range(len(self._session.chain)):
                try:
                    await self._seek_for(place)
                except Exception:
                    log.exception("no peer that could stand by was found")
            await asyncio.sleep(LOOK_S)

    async def _watch(self) -> None:
        """Find out how those come on that stand by."""
        while True:
            await self._look()
            with suppress(ChainBroken):  # then the chain is about to be repaired
                await self.name_senders()
            await self._listen()

    async def _seek_for(self, place: int) -> None:
        chain, now = self._session.chain, self._clock()
        member = chain[place]
        if (
            member.peer_id in self._spares
            or now - self._sought_at.get(member.layers, float("-inf")) < SEEK_S
        ):
            return
        self._sought_at[member.layers] = now
        avoid = {link.peer_id for link in chain} | self.peer_ids | self._spent
        link = await self._finder.spare(*member.layers, avoid)
        if link is not None:
            await self._join(place, link)

    async def _join(self, place: int, link: ChainLink) -> None:
        chain = self._session.chain
        onward = chain[place + 1].hop if place + 1 < len(chain) else None
        feeder = chain[place - 1] if place else None
        spare = Spare(link, chain[place].peer_id, feeder, onward, self._clock())
        self._spares[spare.member] = spare
        link.connection.subscribe(self._session.protocol.id, self._news)
        previous = feeder.peer_id if feeder is not None else None
        with _unsure(spare):
            await self._tell(
                spare, self._session.protocol.opening(link, onward, previous, self._epoch)
            )

    async def _look(self) -> None:
        """Ask everybody how far it has come, and leave those that failed."""
        left: list[Spare] = []
        asked: list[tuple[Spare, Message]] = []
        for spare in self._spares.values():
            if not spare.failure and self._clock() - spare.since > CATCH_UP_S:
                spare.failure = f"it was not up to date for {CATCH_UP_S:g} s"
            if spare.failure or (spare.feed is not None and spare.feed.over):
                log.info(
                    "the peer ...%s stands by no more: %s", spare.link.peer_id[-8:], spare.failure
                )
                self._spent.add(spare.link.peer_id)
                left.append(spare)
            elif spare.fed:
                spare.asked = spare.asked[1], self._answered
                asked.append((spare, Probe(session=self._session.protocol.id)))
        await asyncio.gather(self._leave_all(left), *(self._tell_soon(*each) for each in asked))

    async def _listen(self) -> None:
        """Hear what there is, until it is time for the next look."""
        until = self._clock() + LOOK_S
        with suppress(asyncio.TimeoutError):
            while True:
                self._hear(await within(max(until - self._clock(), 0.0), self._news.get()))
                for spare in list(self._spares.values()):
                    if spare.opened and not spare.fed:
                        await self._feed(spare)

    def _hear(self, arrival: Arrival) -> None:
        """The one place where what a peer that stands by says changes anything."""
        spare = next(
            (each for each in self._spares.values() if each.link.peer_id == arrival.peer_id), None
        )
        message = arrival.message
        if spare is None:
            return
        if isinstance(message, Opened):
            spare.opened = message.branches or not self._session.protocol.branches
            spare.failure = "" if spare.opened else "it takes no branches"
        elif isinstance(message, Rerouted):
            spare.reaches = True
        elif isinstance(message, Progress):
            spare.ready = message.last >= spare.asked[0]
            spare.since = arrival.at if spare.ready and spare.reaches else spare.since
        elif (
            isinstance(message, Fault)
            and spare.opened
            and spare.onward
            and message.peer == spare.onward.peer_id
        ):
            spare.reaches = False  # if that one has failed, it is replaced, and we say by whom
        else:
            spare.failure = message.text if isinstance(message, Fault) else str(message)

    async def _feed(self, spare: Spare) -> None:
        """Let it be told everything, from now on."""
        spare.fed, spare.asked = True, (self._answered, self._answered)
        if spare.feeder is None:
            line = _Counted(self._session, spare.link.connection)
            spare.feed = ReplicaFeed(line.itself, lambda _: None, self._said.as_it_stands())
        else:
            with suppress(ChainBroken), _unsure(spare):  # then the chain is about to be repaired
                await self._session.tell(
                    spare.feeder, Mirror(session=self._session.protocol.id, to=spare.link.hop)
                )
        await self._tell(spare, Probe(session=self._session.protocol.id))

    async def _tell(self, spare: Spare, message: Message) -> None:
        try:
            await self._session.post(spare.link.connection, message)
        except LinkClosed as error:
            spare.failure = error.why

    async def _tell_soon(self, spare: Spare, message: Message, or_else: str = "") -> None:
        """The same, if its link takes it before long.

        Else it has failed, if ``or_else`` says why.
        """
        try:
            await within(LOOK_S, self._tell(spare, message))
        except asyncio.TimeoutError:
            spare.failure = spare.failure or or_else

    async def _leave_all(self, spares: Sequence[Spare]) -> None:
        await asyncio.gather(*(self._leave(spare) for spare in spares))

    async def _leave(self, spare: Spare) -> None:
        """The other half of `_join`: tell it, and the peer before, if they are still there."""
        spare.failure = spare.failure or "it is left"
        spare.link.connection.unsubscribe(self._session.protocol.id)
        with _unsure(spare):
            if spare.feed is not None:
                await spare.feed.close()
            goodbyes: list[tuple[ChainLink, Message]] = [
                (spare.link, Close(session=self._session.protocol.id))
            ]
            if spare.fed and spare.feeder in self._session.chain:
                goodbyes.append((spare.feeder, Mirror(session=self._session.protocol.id)))
            await asyncio.gather(
                *(take_leave(link.connection, message) for link, message in goodbyes)
            )
        self._spares.pop(spare.member, None)


@contextmanager
def _unsure(spare: Spare) -> Iterator[None]:
    """While something is said about which it matters whether it was heard.

    If that is interrupted, it stays so.
    """
    spare.unsure = True
    yield
    spare.unsure = False


def goes_on_to(hop: Hop, session: ChainSession, held: ResumePoint) -> Reroute:
    """Tells a peer who comes next from now on, and holds everything already."""
    return Reroute(
        session=session.protocol.id, epoch=held.epoch, root=held.root, next=hop, replay=None
    )


class _Said:
    """All that was said to the first peer of a chain, as that one holds it."""

    def __init__(self, session: SessionId, held: ResumePoint) -> None:
        self._session = session
        self._stream = TokenTree()
        self._tokens = list(held.tokens)  # a row each
        for first, rows, root, parents in replayed(held.root, len(held.tokens)):
            self._stream.admit(
                held.epoch, root, first, rows.stop - rows.start, parents, replay=True
            )

    def frame(self, window: Window) -> Frame:
        """Keep a window; returns it as it is told to who stands by."""
        count = len(window.tokens)
        placement = self._stream.admit(
            window.epoch, window.root, window.first, count, window.parents
        )
        if placement is not None:
            start, keep = placement.start, placement.keep
            self._tokens[start - len(keep) :] = [
                *(self._tokens[row] for row in keep),
                *window.tokens,
            ]
        chunk = ReplayChunk(window.first, slice(0, count), window.root, window.parents)
        return Frame.again(self._session, window.epoch, chunk, 0, tokens=window.tokens)

    def as_it_stands(self) -> Iterator[Frame]:
        """Frames that tell it all once more."""
        told: Sequence[ReplayChunk] = list(self._stream.replay_chunks())
        tokens, epoch = tuple(self._tokens), self._stream.epoch
        return (
            Frame.again(self._session, epoch, each, 0, tokens=tokens[each.rows]) for each in told
        )


class _Counted:
    """A connection whose bytes count as the session's."""

    def __init__(self, session: ChainSession, connection: Connection) -> None:
        self._session, self._connection = session, connection

    async def itself(self) -> "_Counted":
        return self

    async def send(self, message: Message) -> int:
        """Raises `LinkClosed`."""
        return await self._session.post(self._connection, message)
