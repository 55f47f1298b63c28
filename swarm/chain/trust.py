"""Which peers one client trusts, and what becomes of those that lied and of all that rests on their
work."""

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


class Rests(Protocol):
    """A session, or what else a chain computes."""

    @property
    def chain(self) -> Sequence[ChainLink]:
        """Its peers now."""
        ...

    @property
    def parties(self) -> Mapping[str, ChainLink]:
        """All peers that ever had a part in it, by their ids."""
        ...


class Trust:
    """Bans peers that lied, and lets everything know that uses them.

    Args:
        ledger: what is known of the honesty of peers.
        health: where bans are kept.
        connections: a peer that lied has none any more.

    Attributes:
        caught: peers that were found to lie.
        when_banned: is called, and waited for, whenever there is another one.
    """

    def __init__(self, ledger: Ledger, health: Health, connections: Connections) -> None:
        self.ledger = ledger
        self.caught: tuple[str, ...] = ()
        self.when_banned: list[Callable[[], Awaitable[None]]] = []
        self._health, self._connections = health, connections

    async def doubt(self, peer_ids: Collection[str], dispute: bool = False) -> None:
        """One of these peers computed something else than the model; in a dispute, each says so of
        the others. Once it is certain which, it is banned."""
        for peer_id in self.ledger.disagreed(peer_ids, dispute):
            await self.condemn(peer_id)

    async def condemn(self, peer_id: str) -> None:
        """This peer lied: have nothing to do with it any more.

        Whatever uses it hears of that at once: sessions that run and peers that stand by when the
        connection ends, those that rest by ``when_banned``.
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

    def liar(self, session: Rests) -> ChainLink | None:
        """A peer that lied, and on whose work rests what the peers of a session hold; None if there
        is none."""
        return next((link for peer_id, link in session.parties.items() if self.lied(peer_id)), None)

    @staticmethod
    def misled(session: Rests, liar: ChainLink) -> set[str]:
        """The peers of a chain that come behind a liar, be it still there or not: they may be
        honest, and hold what they made of its lies."""
        return {link.peer_id for link in session.chain if link.stage.first >= liar.stage.last}

    def would_use(self, session: Rests) -> bool:
        """Whether a text may go on in a session: its peers could be chosen for a new one as well,
        and none lied."""
        return not self.liar(session) and all(
            self._health.usable(link.peer_id) for link in session.chain
        )
