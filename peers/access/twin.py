"""Finds another peer with our key: the swarm cannot tell the two apart, so one has to end.

On one computer a lock finds it (`swarm.keylock`), between computers the record in the directory.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from swarm.errors import DirectoryDown
from swarm.keylock import KeyInUse
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed

LOOK_S = 60.0  # two peers that start at the same moment do not find each other at their start
OTHER_MODELS = 8  # that one look asks for; where there are more, they take turns by lot

log = logging.getLogger(__name__)


class TwinSearch:
    """Looks for another peer with our key, at the addresses that the directory has under it.

    It looks among the peers of this peer's model and of others.
    """

    def __init__(self, dialer: Dialer, rng: random.Random | None = None) -> None:
        self._dialer = dialer
        self._rng = rng or random.Random()
        self._from_us = 0  # links by which this peer has dialled itself

    def serving(
        self, serve: Callable[[Link], Awaitable[None]]
    ) -> Callable[[Link], Awaitable[None]]:
        """Return `serve` for incoming links, noticing our own: an old address may lead to us."""

        async def noticed(link: Link) -> None:
            if link.peer_id == self._dialer.me.identity.peer_id:
                self._from_us += 1
            await serve(link)

        return noticed

    async def check(self, directory: Directory, record: PeerRecord) -> None:
        """Raise KeyInUse if a peer with our key serves elsewhere.

        Args:
            record: what this peer announces, or is about to.
        """
        for other in await self._find(directory, record):
            if address := await self._where_it_answers(other, record.addresses):
                raise KeyInUse(record.peer_id, f"a peer at {address}")

    async def keep(self, directory: Directory, record: Callable[[], PeerRecord]) -> None:
        """Look every `LOOK_S`, until cancelled.

        Of two peers, the one whose addresses sort later raises KeyInUse.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look(directory, record())

    async def look(self, directory: Directory, record: PeerRecord) -> None:
        """Look once, as `keep` does."""
        for other in await self._find(directory, record):
            address = await self._where_it_answers(other, record.addresses)
            if address and other.addresses < record.addresses:
                raise KeyInUse(record.peer_id, f"a peer at {address}")
            if address:
                log.warning("a peer at %s uses this peer's key, too; it will end", address)

    async def _find(self, directory: Directory, record: PeerRecord) -> Sequence[PeerRecord]:
        """Return the records under our id, of our model and of some others.

        There are none while the directory is down; publishing the record logs that.
        """
        found: list[PeerRecord] = []
        with suppress(DirectoryDown):
            found += await directory.under_our_id(record.fingerprint, record.model_layers)
            others = [
                each for each in await directory.models() if each.fingerprint != record.fingerprint
            ]
            chosen = self._rng.sample(others, min(OTHER_MODELS, len(others)))
            for each in chosen:
                found += await directory.under_our_id(each.fingerprint, each.model_layers)
        return found

    async def _where_it_answers(self, other: PeerRecord, ours: Sequence[str]) -> str | None:
        """Return the first of its addresses where another peer proves that it has our key."""
        elsewhere = [address for address in other.addresses if address not in ours]
        for address in elsewhere:
            if await self._is_another(address, other):
                return address
        return None

    async def _is_another(self, address: str, other: PeerRecord) -> bool:
        """Whether a peer other than this one answers there."""
        before = self._from_us
        try:
            link = await self._dialer.connect(address, other.certificate, other.peer_id)
            connection = Connection(other.peer_id, link)
            try:
                await connection.ping()  # if we answer it ourselves, `serving` notices
            finally:
                await connection.close()
        except LinkClosed:
            return False
        return self._from_us == before
