"""Which peers one client trusts: peers that lied are banned, and the work that rests on theirs is
withdrawn."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from swarm.audit.ledger import Ledger
from swarm.chain.stage import ChainLink
from swarm.network.pool import Connections
from swarm.routing.health import Health

MAX_CAUGHT = 64
LIED = "it was found to lie"

log = logging.getLogger(__name__)


class SessionParties(Protocol):
    """The peers of one session, now and before."""

    @property
    def chain(self) -> Sequence[ChainLink]:
        """The peers that serve it now."""
        ...

    @property
    def parties(self) -> Mapping[str, ChainLink]:
        """All peers that ever had a part in it, by peer id."""
        ...


class Trust:
    """Bans peers that lied, and tells everything that uses them.

    Args:
        ledger: what is known of the honesty of peers.
        health: where bans are kept.
        connections: those to peers that lied are closed.

    Attributes:
        caught: peers that were found to lie.
        when_banned: called, and awaited, for every peer that is banned.
    """

    def __init__(self, ledger: Ledger, health: Health, connections: Connections) -> None:
        self.ledger = ledger
        self.caught: tuple[str, ...] = ()
        self.when_banned: list[Callable[[], Awaitable[None]]] = []
        self._health = health
        self._connections = connections

    async def doubt(self, peer_ids: Collection[str], dispute: bool = False) -> None:
        """Record that one of these peers computed something else than the model, and ban it once it
        is certain which one.

        Args:
            dispute: the peers gave different answers to the same question.
        """
        for peer_id in self.ledger.disagreed(peer_ids, dispute):
            await self.condemn(peer_id)

    async def condemn(self, peer_id: str) -> None:
        """Ban a peer that lied.

        All that uses it ends at once: running sessions and peers that stand by notice the closed
        connection, idle sessions are closed through ``when_banned``.
        """
        log.info("the peer ...%s lied, and is not used any more", peer_id[-8:])
        self.ledger.convicted(peer_id)
        self._health.ban(peer_id)
        self.caught = (*(other for other in self.caught if other != peer_id), peer_id)[-MAX_CAUGHT:]
        await asyncio.gather(
            self._connections.drop(peer_id, LIED), *(tell() for tell in self.when_banned)
        )

    def lied(self, peer_id: str) -> bool:
        """Whether a peer is banned for a lie."""
        return self._health.banned(peer_id)

    def liar(self, session: SessionParties) -> ChainLink | None:
        """Return a party of the session that lied, or None. What the session's peers hold rests on
        its work."""
        return next((link for peer_id, link in session.parties.items() if self.lied(peer_id)), None)

    @staticmethod
    def misled(session: SessionParties, liar: ChainLink) -> set[str]:
        """Return the peers of the chain that come after a liar, whether or not it is still part of
        it. They may be honest, but hold what they computed from its lies."""
        return {link.peer_id for link in session.chain if link.stage.first >= liar.stage.last}

    def would_use(self, session: SessionParties) -> bool:
        """Whether a text may go on in a session: its peers could be chosen for a new one, and no
        party of it lied."""
        return not self.liar(session) and all(
            self._health.usable(link.peer_id) for link in session.chain
        )
