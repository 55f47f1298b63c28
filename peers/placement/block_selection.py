"""Chooses the layers that a peer serves, among peers that choose at the same time.

A peer that has chosen claims the span by a record in the state "joining", waits a moment, and looks
again. Earlier claims have precedence. Among claims of the same moment the peer with the lower id
has precedence, and the others choose again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from peers.placement.membership import as_serving, usual_speed
from swarm.errors import DirectoryDown
from swarm.network.dht.records import PeerRecord
from swarm.routing.cuts import Cuts
from swarm.routing.placement import ServedSpan, Span, better_span, choose_span

CLAIM_PAUSE_S = 1.0  # until all peers can see a claim; up to twice that
LOOK_TRIES = 3  # to read the directory at first, before the peer gives up
CLAIM_ROUNDS = 6  # a span that is contested for longer is taken, and reconsidered later
# the longest pause before a peer that wants to move looks again: of several, one goes first
CONFIRM_PAUSE_S = 4.0
LOOK_EVERY_S = 10.0  # the mean time until a peer reconsiders its layers
# peers; in a larger swarm each looks less often, so that all together look as often as these
CROWD = 32

log = logging.getLogger(__name__)


class MembershipView(Protocol):
    """What `BlockSelection` needs of a `Membership`."""

    @property
    def peers(self) -> int: ...

    async def take(self, mine: Span | None = None) -> list[PeerRecord] | None: ...


class BlockSelection:
    """Chooses layers for one peer.

    Args:
        cuts: where the model may be cut.
        capacity: how many layers this peer can hold.
        claim: lets others know that this peer is about to serve some layers.
    """

    def __init__(
        self,
        peer_id: str,
        cuts: Cuts,
        capacity: int,
        membership: MembershipView,
        claim: Callable[[Span], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._peer_id = peer_id
        self._cuts = cuts
        self._capacity = capacity
        self._membership = membership
        self._claim = claim
        self._rng = rng

    async def choose(self) -> Span:
        """Claim the layers that the swarm lacks most, and return them. Raise `DirectoryDown`."""
        seen = await self._first_look()
        speed = usual_speed(seen)
        span = choose_span(
            as_serving(seen),
            self._cuts.model_layers,
            self._capacity,
            speed,
            self._rng,
            self._cuts,
        )
        for _ in range(CLAIM_ROUNDS):
            try:
                seen = await self._claim_and_look(span, seen)
            except DirectoryDown as error:
                log.warning("whether others claim the same layers is found out later: %s", error)
                return span
            better = self._better(seen, ServedSpan(self._peer_id, *span, speed))
            if better is None:
                return span
            span = better
        await self._claim(span)
        return span

    async def reconsider(self, first: int, last: int, tokens_per_second: float) -> Span | None:
        """Claim better layers to move to and return them; return None to stay, without a claim."""
        mine = ServedSpan(self._peer_id, first, last, tokens_per_second)
        try:
            if await self._wish(mine) is None:
                return None
            await asyncio.sleep(self._rng.uniform(0, CONFIRM_PAUSE_S))
            seen = await self._membership.take((first, last))
            span = self._move(seen, mine)
            if seen is None or span is None:
                return None
            seen = await self._claim_and_look(span, seen)
        except DirectoryDown as error:
            log.warning("whether to move is decided later: %s", error)
            return None
        there = ServedSpan(self._peer_id, *span, tokens_per_second)
        return (
            span
            if self._move(seen, mine) is not None and self._better(seen, there) is None
            else None
        )

    def pause_s(self) -> float:
        """Return how long to serve before the next look."""
        return LOOK_EVERY_S * max(1.0, self._membership.peers / CROWD) * self._rng.uniform(0.5, 1.5)

    async def _first_look(self) -> list[PeerRecord]:
        """Look; try again if the directory is down.

        Where many peers start at once, the nodes that store records may be too busy to answer.
        """
        for _ in range(LOOK_TRIES - 1):
            try:
                return await self._membership.take() or []
            except DirectoryDown as error:
                log.warning("the directory could not be read, trying again: %s", error)
                await asyncio.sleep(CLAIM_PAUSE_S * self._rng.uniform(1, 2))
        return await self._membership.take() or []

    async def _wish(self, mine: ServedSpan) -> Span | None:
        return self._move(await self._membership.take((mine.first_layer, mine.last_layer)), mine)

    async def _claim_and_look(self, span: Span, before: Iterable[PeerRecord]) -> list[PeerRecord]:
        """Claim, wait, and return the records that this peer has to respect."""
        await self._claim(span)
        await asyncio.sleep(CLAIM_PAUSE_S * self._rng.uniform(1, 2))
        earlier = {record.peer_id: record for record in before}
        return respected(await self._membership.take(span) or [], self._peer_id, earlier)

    def _better(self, seen: Iterable[PeerRecord], mine: ServedSpan) -> Span | None:
        cuts = self._cuts
        serving = as_serving(seen)
        return better_span(serving, mine, cuts.model_layers, self._capacity, self._rng, cuts)

    def _move(self, seen: "list[PeerRecord] | None", mine: ServedSpan) -> Span | None:
        """Return a better span; None if there is none, or if layers would be left unserved.

        All layers that the move leaves have to be served by others now, and not only soon.
        """
        if seen is None:
            return None
        span = self._better(seen, mine)
        if span is None:
            return None
        served = {
            i for r in seen if r.state == "online" for i in range(r.first_layer, r.last_layer)
        }
        left = set(range(mine.first_layer, mine.last_layer)) - set(range(*span))
        return span if left <= served else None


def respected(
    records: Iterable[PeerRecord], peer_id: str, earlier: Mapping[str, PeerRecord]
) -> list[PeerRecord]:
    """Return the records that a peer has to respect.

    These are the peers that serve, and claims that are older or have a lower id.

    Args:
        peer_id: of the peer that chooses.
        earlier: the records before its own claim, by peer id.
    """

    def counts(record: PeerRecord) -> bool:
        known = earlier.get(record.peer_id)
        was_there = known is not None and (known.first_layer, known.last_layer) == (
            record.first_layer,
            record.last_layer,
        )
        return record.state == "online" or was_there or record.peer_id < peer_id

    return [record for record in records if counts(record)]
