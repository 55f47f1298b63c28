"""Repairing a chain while a generation runs on it: who has failed, who takes the place, and what
they are given.

The peer before the failed ones keeps what it sent on. It is told who follows now and replays to the
new peers, which compute it in one pass; nothing before them is computed again, and nothing travels
through the client. Only what the first peer of a chain held is replayed by the client, from the
text itself. Where nothing was kept, the gap grows towards the client until it can be filled. A peer
that stood by (`swarm.chain.standby`) needs no replay.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from swarm.chain.blame import broken_by
from swarm.chain.session import ChainSession
from swarm.chain.spares import Spare
from swarm.chain.stage import ChainLink, take_leave
from swarm.chain.standby import Standby, go_on_to
from swarm.chain.standstill import Standstill
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken, ChainSilent, Implausible, MissingLayers, SwarmIncomplete
from swarm.network.links.link import LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Close, Probe, Progress, Reroute, Rerouted
from swarm.wire.replays import replay_frame
from swarm.wire.token_tree import replayed

PROBE_TIMEOUT_S = 0.5  # a peer answers a probe on its event loop, whatever it computes
LEAST_STANDSTILL_S = 0.3  # between two looks, in which a chain that works makes progress
REPLAY_TIMEOUT_S = 60.0  # a long text through new peers
HAND_OVER_TIMEOUT_S = 3.0  # what is still on its way to a peer that stood by
PAUSE_S = 0.5  # between two looks for peers to take the place

log = logging.getLogger(__name__)


class Finder(Protocol):
    """What has to be known of the swarm."""

    async def span(
        self, first: int, last: int, avoid: Collection[str], dtype: str | None
    ) -> list[ChainLink]:
        """Return peers that serve layers ``[first, last)`` together, one after the other.

        Those that compute in ``dtype`` are preferred. Raises `MissingLayers`.
        """
        ...

    def failed(self, peer_id: str) -> None:
        """Take note that a peer failed."""
        ...

    @property
    def trust(self) -> Trust:
        """Which peers are trusted."""
        ...


@dataclass(frozen=True)
class Repair:
    """What was done.

    Attributes:
        peers: the ids of those that are not part of the chain any more.
        layers: the span ``[a, b)`` from the first to the last of them.
        waited_ms: for peers to appear, while there were none.
        replayed_tokens: that new peers were given.
        standby: peers that stood by took all the places.
    """

    peers: tuple[str, ...]
    layers: tuple[int, int]
    waited_ms: float
    replayed_tokens: int
    standby: bool


class Repairer:
    """Repairs one session's chain. Times are seconds of the session's clock.

    Args:
        standby: peers that may take a place at once.
        patience_s: how long peers may be missing before `SwarmIncomplete` is raised.
    """

    def __init__(
        self,
        session: ChainSession,
        finder: Finder,
        standby: Standby,
        patience_s: float,
    ) -> None:
        self._session = session
        self._id = session.protocol.id
        self._finder = finder
        self._standby = standby
        self._patience_s = patience_s
        self._clock = session.clock
        self._replayed = False  # in the repair that is under way
        self._replaying: set[str] = set()  # peers that may still compute a replay
        self._implausible = False  # an answer was, before
        # peers that hold what they made of the lies of the one that is to be replaced; they may
        # be used again
        self._misled: set[str] = set()

    def answered(self) -> None:
        """Note an answer of the chain: all its peers have computed what was replayed to them."""
        self._replaying.clear()

    # Who has failed.

    async def find_failed(self, why: ChainBroken | ChainSilent) -> set[str]:
        """Return the ids of failed peers: those named by ``why``, those that do not answer a probe,
        and, after a silence, the first peer that makes no progress. Empty if the chain is merely
        slow."""
        broken: set[str] = set()
        if isinstance(why, Implausible):
            broken |= await self._doubt()
        if isinstance(why, ChainBroken):
            self._blame(why)
            broken.add(why.peer_id)
            self._misled = self._misled_by(why.peer_id)
            broken = (broken | self._misled) & {link.peer_id for link in self._session.chain}
        before = await self._look(broken)
        if broken or isinstance(why, ChainBroken):
            return broken
        return await self._standing_still(before)

    async def _standing_still(self, first: dict[str, Progress]) -> set[str]:
        """Return the ids of peers that do not answer any more, or of the one that stands still."""
        protocol = self._session.protocol
        standstill = Standstill(
            [link.peer_id for link in protocol.chain],
            protocol.last_sent,
            self._replaying,
            first,
            self._clock(),
        )
        broken: set[str] = set()
        while True:
            await asyncio.sleep(max(LEAST_STANDSTILL_S, protocol.patience_s / 3))
            progress = await self._look(broken)
            if broken:
                return broken
            verdict = standstill.look(progress, self._clock())
            if verdict.peer_id is not None:
                link = protocol.parties[verdict.peer_id]
                self._blame(broken_by(link, "it makes no progress"))
                return {verdict.peer_id}
            if verdict.over:
                return set()

    def _misled_by(self, peer_id: str) -> set[str]:
        trust, session = self._finder.trust, self._session
        return trust.misled(session, session.parties[peer_id]) if trust.lied(peer_id) else set()

    async def _doubt(self) -> set[str]:
        """Return which peers to exchange besides the last one, after an impossible answer.

        The last peer gave it most likely. If another one is no better, the reason lies before it,
        and all are exchanged.
        """
        chain = {link.peer_id for link in self._session.chain}
        await self._finder.trust.doubt(chain)
        again, self._implausible = self._implausible, True
        return chain if again else set()

    async def _look(self, broken: set[str]) -> dict[str, Progress]:
        """Return how far every peer has come; those that do not tell are added to ``broken``."""
        asked = [link for link in self._session.chain if link.peer_id not in broken]
        asking = [asyncio.create_task(self._probe(link)) for link in asked]
        try:
            replies = await self._session.poll(Progress, asked, PROBE_TIMEOUT_S)
        finally:
            await end(*asking)  # a link that has not even taken the question by now
        progress = {}
        for link in asked:
            reply = replies.get(link.peer_id)
            if isinstance(reply, Progress):
                progress[link.peer_id] = reply
            else:
                self._blame(reply or broken_by(link, "it does not answer"))
                broken.add(link.peer_id)
        return progress

    async def _probe(self, link: ChainLink) -> None:
        with suppress(ChainBroken):  # the session gets it as an event, too
            await self._session.tell(link, Probe(session=self._id))

    def _blame(self, failure: ChainBroken) -> None:
        if failure.is_failure:
            log.info(
                "the peer ...%s is left alone for a while: %s", failure.peer_id[-8:], failure.why
            )
            self._finder.failed(failure.peer_id)

    # Who takes the place.

    async def repair(self, broken: set[str], resume: Callable[[], ResumePoint]) -> Repair:
        """Replace the peers that failed.

        Args:
            resume: returns what new peers have to hold; called once for every attempt.

        Raises:
            SwarmIncomplete: if no peer takes the place in time.
        """
        deadline = self._clock() + self._patience_s
        self._replayed = False
        await self._session.withhold()
        await self._standby.rest()
        lost = [link for link in self._session.chain if link.peer_id in broken]
        broken, avoid = set(broken), broken - self._misled
        waited_s = 0.0
        while True:
            held, begun_at = resume(), self._clock()
            try:
                await self._replace(broken, avoid, held)
                return self._repair(lost, waited_s, held)
            except ChainBroken as again:
                log.info(
                    "while a chain was repaired, peer ...%s failed: %s",
                    again.peer_id[-8:],
                    again.why,
                )
                self._blame(again)
                members = [link for link in self._session.chain if link.peer_id == again.peer_id]
                lost += [link for link in members if link not in lost]
                broken.add(again.peer_id)
                if again.code is not FaultCode.NO_HISTORY:
                    avoid.add(again.peer_id)
                missing: str = again.why
            except MissingLayers as error:
                await asyncio.sleep(PAUSE_S)
                missing = str(error)
                # peers that failed are left alone for a while in any case, and may only be slow
                avoid.clear()
                waited_s += self._clock() - begun_at
            if self._clock() > deadline:
                raise SwarmIncomplete(missing, self._patience_s)

    def _repair(self, lost: Sequence[ChainLink], waited_s: float, held: ResumePoint) -> Repair:
        layers = min(link.stage.first for link in lost), max(link.stage.last for link in lost)
        return Repair(
            peers=tuple(link.peer_id for link in lost if link not in self._session.chain),
            layers=layers,
            waited_ms=waited_s * 1e3,
            replayed_tokens=len(held.tokens) * self._replayed,
            standby=not self._replayed,
        )

    async def _replace(self, broken: set[str], avoid: set[str], held: ResumePoint) -> None:
        """Fill every gap of the chain. What has been filled stays so if a later gap cannot be."""
        session = self._session
        await self._dismiss([link for link in session.chain if link.peer_id in broken])
        while gap := _first_gap(session.chain, broken):
            await self._standby.follow(broken, held)
            before = session.chain[gap.start - 1] if gap.start else None
            behind = session.chain[gap.stop] if gap.stop < len(session.chain) else None
            if spare := await self._standby.take(session.chain[gap.start], broken):
                filled = _Gap(gap.start, gap.start + 1)
                new = [spare.link]
                behind = behind if filled == gap else None  # it has failed, too
                filling = self._step_in(before, spare, behind, held)
            else:
                filled = gap
                new = await self._span(session.chain[gap.start : gap.stop], avoid)
                filling = self._bring_in(before, new, behind, held)
            try:
                await filling
            except BaseException:
                await self._dismiss(new)
                raise
            first, rest = session.chain[: filled.start], session.chain[filled.stop :]
            session.protocol.go_on([*first, *new, *rest], held.epoch)
            # a peer that failed only because it had kept nothing may be part of the chain again
            broken -= {link.peer_id for link in new}
        await self._standby.follow(broken, held)
        await self._standby.name_senders()

    async def _span(self, gap: Sequence[ChainLink], avoid: set[str]) -> list[ChainLink]:
        """Return peers for the layers of a gap. Raises `MissingLayers`.

        Those that compute in the dtype of the failed ones are preferred. If need be, they are peers
        that stand by elsewhere, which are left; or peers of the chain: one of these refuses, the
        gap grows by its layers, and then it may serve all of them.
        """
        first, last = gap[0].stage.first, gap[-1].stage.last
        dtypes = {link.record.dtype for link in gap}
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        chain = {link.peer_id for link in self._session.chain}
        with suppress(MissingLayers):
            taken = chain | self._standby.peer_ids
            return await self._finder.span(first, last, avoid | taken, dtype)
        if self._standby.peer_ids:
            await self._standby.leave_all()
            with suppress(MissingLayers):
                return await self._finder.span(first, last, avoid | chain, dtype)
        return await self._finder.span(first, last, avoid, dtype)

    async def _step_in(
        self,
        before: ChainLink | None,
        spare: Spare[ChainLink],
        behind: ChainLink | None,
        held: ResumePoint,
    ) -> None:
        """Let a peer that stood by take a place. It holds everything, or is about to."""
        session, link = self._session, spare.link
        late = broken_by(link, "it stood by, and was not told everything")
        try:
            session.admit(link, spare.onward, spare.taps)
            if behind is not None:
                await session.accept_from(behind, spare.member, link.peer_id)
            await within(HAND_OVER_TIMEOUT_S, self._standby.finish_feed(spare))
            if before is not None:
                session.protocol.follow(before, link.hop)
                await session.tell(before, go_on_to(link.hop, self._id, held))
                await within(HAND_OVER_TIMEOUT_S, self._rerouted(before, held))
        except (LinkClosed, asyncio.TimeoutError):
            raise late from None
        finally:
            await self._standby.end_feed(spare)
        if behind is not None:
            await session.accepted(behind, link.peer_id)

    async def _bring_in(
        self,
        before: ChainLink | None,
        new: list[ChainLink],
        behind: ChainLink | None,
        held: ResumePoint,
    ) -> None:
        """Let new peers take a place, and give them what the old ones held."""
        session = self._session
        self._replayed = True
        onward = behind.hop if behind else None
        previous = before.peer_id if before else None
        if behind is not None:
            await session.accept_from(behind, new[-1].peer_id)
        await session.join(new, onward, held.epoch, previous)
        self._replaying |= {link.peer_id for link in new}
        if before is None:
            await self._replay(new, held)
        else:
            await self._reroute(before, new, held)
        if behind is not None:
            await session.accepted(behind, new[-1].peer_id)

    async def _replay(self, new: list[ChainLink], held: ResumePoint) -> None:
        """Send the text to a new first peer, and through it to the other new ones."""
        for chunk in replayed(held.root, len(held.tokens)):
            tokens = held.tokens[chunk.rows]
            frame = replay_frame(self._id, held.epoch, chunk, len(new) - 1, tokens=tokens)
            await self._session.tell(new[0], frame)

    async def _reroute(self, before: ChainLink, new: list[ChainLink], held: ResumePoint) -> None:
        """Have the peer before the gap replay its outputs to the new peers."""
        self._session.protocol.follow(before, new[0].hop)
        reroute = Reroute(
            session=self._id,
            epoch=held.epoch,
            root=held.root,
            next=new[0].hop,
            replay=len(new) - 1,
        )
        await self._session.tell(before, reroute)
        await self._rerouted(before, held)

    async def _rerouted(self, before: ChainLink, held: ResumePoint) -> None:
        """Wait until a peer has followed a reroute. Raises `ChainBroken`."""
        while True:
            (answer,) = await self._session.expect(Rerouted, [before], REPLAY_TIMEOUT_S)
            if answer.epoch >= held.epoch:  # else it answers an earlier one
                return

    async def _dismiss(self, links: list[ChainLink]) -> None:
        """Take no more messages from peers, and tell them so, if they are still there."""
        self._session.leave(links)
        goodbye = Close(session=self._id)
        await asyncio.gather(*(take_leave(link.connection, goodbye) for link in links))


class _Gap(NamedTuple):
    """Peers of a chain that failed, in a row: those at the places ``[start, stop)``."""

    start: int
    stop: int


def _first_gap(chain: Collection[ChainLink], broken: set[str]) -> _Gap | None:
    failed = [place for place, link in enumerate(chain) if link.peer_id in broken]
    in_a_row = [place for number, place in enumerate(failed) if place == failed[0] + number]
    return _Gap(in_a_row[0], in_a_row[-1] + 1) if in_a_row else None
