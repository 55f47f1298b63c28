"""From records to peers that answer: what the DHT promises is checked by a ping before it is used."""

import asyncio
import logging
from collections.abc import Sequence

from swarm.network.connection import Connection
from swarm.network.link import Dialer, LinkClosed
from swarm.network.records import PeerRecord

MAX_CANDIDATES = 64  # peers that one search pings

log = logging.getLogger(__name__)


class Connections:
    """The client's open connections, one a peer, kept for the next generation."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._open: dict[str, Connection] = {}

    async def reach(self, records: Sequence[PeerRecord]) -> dict[str, Connection]:
        """Connections, by peer id, to those peers that answer a ping now; the others are left out."""
        attempts = [self._try(record) for record in records[:MAX_CANDIDATES]]
        return {c.peer_id: c for c in await asyncio.gather(*attempts) if c is not None}

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._open.values()))
        self._open.clear()

    async def _try(self, record: PeerRecord) -> Connection | None:
        for address in record.addresses:
            try:
                connection = await self._to(record, address)
                await connection.ping()
            except LinkClosed as error:
                log.info("peer ...%s: %s", record.peer_id[-8:], error)
                continue
            return connection
        return None

    async def _to(self, record: PeerRecord, address: str) -> Connection:
        known = self._open.get(record.peer_id)
        if known is not None and not known.closed and known.link.address == address:
            return known
        if known is not None:
            await known.close()
        link = await self._dialer.connect(address, record.certificate)
        self._open[record.peer_id] = Connection(record.peer_id, link)
        return self._open[record.peer_id]
