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
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from swarm.chain.in_flight import PROMPT_TIMEOUT_S
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink, take_leave
from swarm.chain.standby import Spare, Standby, goes_on_to
from swarm.chain.trust import Trust
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken, ChainSilent, Implausible, MissingLayers, SwarmIncomplete
from swarm.network.links.link import LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.messages import Close, FaultCode, Frame, Probe, Progress, Reroute, Rerouted
from swarm.wire.token_tree import replayed

PROBE_TIMEOUT_S = 0.5  # a peer answers a probe on its event loop, whatever it computes
LEAST_STANDSTILL_S = 0.3  # between two looks, in which a chain that works gets on
STANDSTILL_S = 2.0  # of one peer that has nothing of the session to compute
BATCH_S = (
    10.0  # of one that has: a batch may be a chunk of another session's prompt, on a slow host
)
REPLAY_TIMEOUT_S = 60.0  # a long text through new peers
HAND_OVER_TIMEOUT_S = 3.0  # what is still on its way to a peer that stood by
PAUSE_S = 0.5  # between two looks for peers to take the place

log = logging.getLogger(__name__)


class Finder(Protocol):
    """What has to be known of the swarm."""

    async def span(self, first: int, last: int, avoid: Collection[str]) -> list[ChainLink]:
        """Peers that serve layers ``[first, last)`` together, one after the other.

        Raises `MissingLayers`.
        """
        ...

    def failed(self, peer_id: str) -> None:
        """Take note that a peer failed."""
        ...

    @property
    def trust(self) -> Trust:
        """In which peers."""
        ...


@dataclass(frozen=True)
class Repair:
    """What was done."""

    peers: tuple[str, ...]  # that are not part of the chain any more
    layers: tuple[int, int]  # the span [a, b) from the first to the last of them
    waited_ms: float  # for peers to appear, while there were none
    replayed_tokens: int
    standby: bool  # peers that stood by took all the places


class Mender:
    """Repairs one session's chain.

    Args:
        standby: peers that may take a place at once.
        patience_s: how long peers may be missing before `SwarmIncomplete` is raised.
    """

    def __init__(
        self, session: ChainSession, finder: Finder, standby: Standby, patience_s: float
    ) -> None:
        self._session, self._finder, self._standby, self._patience_s = (
            session,
            finder,
            standby,
            patience_s,
        )
        self._clock = session.clock
        self._replayed = False  # in the repair that is under way
        # peers that were told the text again, and may still read
        self._told_again: set[str] = set()
        self._implausible = False  # an answer was, before
        # who holds lies of the peer that is to be replaced, and may hold the text again
        self._misled: set[str] = set()

    def answered(self) -> None:
        """Note an answer of the chain: all its peers have read what they were told again."""
        self._told_again.clear()

    async def who(self, why: ChainBroken | ChainSilent) -> set[str]:
        """Whoever is known to have failed, and whoever does not answer now.

        After a silence, if all answer: the one that does not get on with what it was given. Nobody,
        if the chain only takes long.
        """
        broken = set()
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

    async def _standing_still(self, before: dict[str, Progress]) -> set[str]:
        """Return the ids of peers that do not answer any more, or of the one that stands still: the
        first that was given more than it passes on, for longer than that may take. Return nothing
        as soon as the chain gets on.

        On a slow host the replay of a long text takes many times as long as any loop before, so a
        peer that was told it gets the time of a prompt. So does a busy peer, as long as it ends
        batch after batch: other sessions may come first there.
        """
        broken: set[str] = set()
        since = worked_at = self._clock()
        while True:
            await asyncio.sleep(max(LEAST_STANDSTILL_S, self._session.protocol.patience_s / 3))
            now = await self._look(broken)
            stuck = self._stuck(now) if not broken and _places(now) == _places(before) else None
            if stuck is None:
                return broken
            queued = now[stuck].queued
            if queued and now[stuck].batches != before[stuck].batches:
                worked_at = self._clock()
            before = now
            patience_s = BATCH_S if queued else STANDSTILL_S
            if stuck in self._told_again:
                patience_s = PROMPT_TIMEOUT_S
            idle_s, over_s = self._clock() - worked_at, self._clock() - since
            if idle_s >= patience_s or over_s >= PROMPT_TIMEOUT_S:
                self._blame(
                    self._session.protocol.broken(
                        self._session.parties[stuck], "it does not get on"
                    )
                )
                return {stuck}

    def _misled_by(self, peer_id: str) -> set[str]:
        trust, session = self._finder.trust, self._session
        return trust.misled(session, session.parties[peer_id]) if trust.lied(peer_id) else set()

    async def _doubt(self) -> set[str]:
        """An answer was impossible.

        Most likely the last peer gave it, which is exchanged; if another one is no better, the
        reason lies before it, and everybody is.
        """
        chain = {link.peer_id for link in self._session.chain}
        await self._finder.trust.doubt(chain)
        again, self._implausible = self._implausible, True
        return chain if again else set()

    async def _look(self, broken: set[str]) -> dict[str, Progress]:
        """How far every peer has come; those that do not tell are added to ``broken``."""
        asked = [link for link in self._session.chain if link.peer_id not in broken]
        asking = [asyncio.create_task(self._probe(link)) for link in asked]
        try:
            heard = await self._session.poll(Progress, asked, PROBE_TIMEOUT_S)
        finally:
            await end(*asking)  # a link that has not even taken the question by now
        standings = {}
        for link in asked:
            standing = heard.get(link.peer_id)
            if isinstance(standing, Progress):
                standings[link.peer_id] = standing
            else:
                self._blame(standing or self._session.protocol.broken(link, "it does not answer"))
                broken.add(link.peer_id)
        return standings

    async def _probe(self, link: ChainLink) -> None:
        with suppress(ChainBroken):  # which the session hears of as well
            await self._session.tell(link, Probe(session=self._session.protocol.id))

    def _stuck(self, standings: dict[str, Progress]) -> str | None:
        """The first peer that was sent more than it has sent on: it hangs, or the link to it
        does."""
        due = self._session.protocol.last_sent
        for link in self._session.chain:
            standing = standings[link.peer_id]
            if standing.passed < due:
                return link.peer_id
            due = standing.passed
        return None

    def _blame(self, failure: ChainBroken) -> None:
        if failure.is_failure:
            log.info(
                "the peer ...%s is left alone for a while: %s", failure.peer_id[-8:], failure.why
            )
            self._finder.failed(failure.peer_id)

    async def mend(self, broken: set[str], resume: Callable[[], ResumePoint]) -> Repair:
        """Replace those that failed.

        Args:
            resume: what new peers have to hold; asked once for every attempt.

        Raises:
            SwarmIncomplete: if nobody takes the place in time.
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
                layers = (
                    min(link.stage.first for link in lost),
                    max(link.stage.last for link in lost),
                )
                replayed_tokens = len(held.tokens) * self._replayed
                peers = tuple(link.peer_id for link in lost if link not in self._session.chain)
                return Repair(
                    peers, layers, waited_s * 1e3, replayed_tokens, standby=not self._replayed
                )
            except ChainBroken as again:
                log.info(
                    "while a chain was repaired, peer ...%s failed: %s",
                    again.peer_id[-8:],
                    again.why,
                )
                self._blame(again)
                lost += [
                    link
                    for link in self._session.chain
                    if link.peer_id == again.peer_id and link not in lost
                ]
                broken.add(again.peer_id)
                if again.code is not FaultCode.NO_HISTORY:
                    avoid.add(again.peer_id)
                missing: str = again.why
            except MissingLayers as error:
                await asyncio.sleep(PAUSE_S)
                missing = str(error)
                # who failed is left alone for a while in any case, and may only have been slow
                avoid.clear()
                waited_s += self._clock() - begun_at
            if self._clock() > deadline:
                raise SwarmIncomplete(missing, self._patience_s)

    # Who takes the place.

    async def _replace(self, broken: set[str], avoid: set[str], held: ResumePoint) -> None:
        """Fill every gap of the chain. What has been filled stays so if a later gap cannot be."""
        session = self._session
        await self._dismiss([link for link in session.chain if link.peer_id in broken])
        while gap := _first_gap(session.chain, broken):
            start, end = gap
            await self._standby.follow(broken, held)
            before = session.chain[start - 1] if start else None
            behind = session.chain[end] if end < len(session.chain) else None
            if spare := await self._standby.take(session.chain[start], broken):
                behind = behind if end == start + 1 else None  # it has failed, too
                end, new = start + 1, [spare.link]
                filling = self._step_in(before, spare, behind, held)
            else:
                new = await self._span(session.chain[start:end], avoid)
                filling = self._bring_in(before, new, behind, held)
            try:
                await filling
            except BaseException:
                await self._dismiss(new)
                raise
            session.protocol.go_on([*session.chain[:start], *new, *session.chain[end:]], held.epoch)
            # one that only had kept nothing may be there again
            broken -= {link.peer_id for link in new}
        await self._standby.follow(broken, held)
        await self._standby.name_senders()

    async def _span(self, gap: Sequence[ChainLink], avoid: set[str]) -> list[ChainLink]:
        """Peers for the layers of a gap; if need be, those that stand by elsewhere, or such as are
        part of the chain: one of these refuses, the gap grows by its layers, and then it may serve
        all of them. Raises `MissingLayers`."""
        first, last = gap[0].stage.first, gap[-1].stage.last
        chain = {link.peer_id for link in self._session.chain}
        with suppress(MissingLayers):
            return await self._finder.span(first, last, avoid | chain | self._standby.peer_ids)
        if self._standby.peer_ids:
            await self._standby.leave_all()
            with suppress(MissingLayers):
                return await self._finder.span(first, last, avoid | chain)
        return await self._finder.span(first, last, avoid)

    async def _step_in(
        self, before: ChainLink | None, spare: Spare, behind: ChainLink | None, held: ResumePoint
    ) -> None:
        """Let a peer that stood by take a place; it holds everything, or it is on its way to it."""
        session, link = self._session, spare.link
        session.admit(link, spare.onward)
        late = session.protocol.broken(link, "it stood by, and was not told everything")
        if behind is not None:
            await session.accept_from(behind, spare.member, link.peer_id)
        if spare.feed is not None:
            try:
                await within(HAND_OVER_TIMEOUT_S, spare.feed.finish())
            except (LinkClosed, asyncio.TimeoutError):
                raise late from None
            finally:
                await spare.feed.close()
        if before is not None:
            session.protocol.follow(before, link.hop)
            await session.tell(before, goes_on_to(link.hop, session, held))
            try:
                await within(HAND_OVER_TIMEOUT_S, self._rerouted(before, held))
            except asyncio.TimeoutError:
                raise late from None
        if behind is not None:
            await session.accepted(behind, link.peer_id)

    async def _bring_in(
        self,
        before: ChainLink | None,
        new: list[ChainLink],
        behind: ChainLink | None,
        held: ResumePoint,
    ) -> None:
        """Let new peers take a place, and have what the old ones held."""
        session, self._replayed = self._session, True
        previous, onward = before.peer_id if before else None, behind.hop if behind else None
        if behind is not None:
            await session.accept_from(behind, new[-1].peer_id)
        await session.join(new, onward, held.epoch, previous)
        self._told_again |= {link.peer_id for link in new}
        await self._hand_over(before, new, held)
        if behind is not None:
            await session.accepted(behind, new[-1].peer_id)

    async def _rerouted(self, before: ChainLink, held: ResumePoint) -> None:
        """Wait until a peer has followed a reroute. Raises `ChainBroken`."""
        while (await self._session.expect(Rerouted, [before], REPLAY_TIMEOUT_S))[
            0
        ].epoch < held.epoch:
            pass  # the answer to an earlier one

    async def _hand_over(
        self, before: ChainLink | None, new: list[ChainLink], held: ResumePoint
    ) -> None:
        """Let the new peers have what the old ones held."""
        session, further = self._session, len(new) - 1
        if before is not None:
            hop = new[0].hop
            session.protocol.follow(before, hop)
            reroute = Reroute(
                session=session.protocol.id,
                epoch=held.epoch,
                root=held.root,
                next=hop,
                replay=further,
            )
            await session.tell(before, reroute)
            await self._rerouted(before, held)
            return
        for told in replayed(held.root, len(held.tokens)):
            tokens = held.tokens[told.rows]
            await session.tell(
                new[0], Frame.again(session.protocol.id, held.epoch, told, further, tokens=tokens)
            )

    async def _dismiss(self, links: list[ChainLink]) -> None:
        """Hear nothing more of them, and let them know, if they are still there."""
        self._session.leave(links)
        goodbye = Close(session=self._session.protocol.id)
        await asyncio.gather(*(take_leave(link.connection, goodbye) for link in links))


def _places(standings: Mapping[str, Progress]) -> dict[str, tuple[int, int, int]]:
    """How far a session has come at each peer."""
    return {peer_id: (each.epoch, each.last, each.passed) for peer_id, each in standings.items()}


def _first_gap(chain: Collection[ChainLink], broken: set[str]) -> tuple[int, int] | None:
    """Where in the chain the first peers in a row are that failed: from, and up to."""
    start = 0
    for failed, links in groupby(chain, lambda link: link.peer_id in broken):
        end = start + len(list(links))
        if failed:
            return start, end
        start = end
    return None
