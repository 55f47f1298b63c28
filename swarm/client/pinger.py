"""Which peers answer, for clients that look at a swarm again and again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.pool import MAX_CANDIDATES, Connections

# Of a large swarm a client keeps few connections, and dials the other peers only to see whether
# they answer. A record is fresh proof that its peer lives, so whether it can be reached is not
# tried as often.
ANSWERED_S = 300.0  # for so long a peer that answered counts as answering
SILENT_S = 60.0  # for so long one that did not counts as silent

Path = Literal["direct", "relay"]


@dataclass(frozen=True)
class PingResult:
    """How a peer answers."""

    rtt_ms: float
    path: Path

    @classmethod
    def over(cls, connection: Connection) -> "PingResult":
        """As the peer answered over this connection."""
        return cls(connection.rtt_ms, "relay" if connection.link.relayed else "direct")


@dataclass(frozen=True)
class _Tried:
    addresses: tuple[str, ...]
    at_s: float
    result: PingResult | None


class Pinger:
    """Asks peers whether they answer. Close it at the end.

    Args:
        dialer: opens connections that are closed once a peer has answered.
        connections: those that the client has anyhow; they are used where there are some.
        clock: seconds, monotonic.
    """

    def __init__(
        self, dialer: Dialer, connections: Connections, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._visits = Connections(dialer)
        self._connections = connections
        self._clock = clock
        self._tried: dict[str, _Tried] = {}

    async def ask(self, records: Sequence[PeerRecord]) -> dict[str, PingResult]:
        """Return how the peers answer, by peer id; those that do not answer are left out.

        In a small swarm all are asked now. In a large one only those with a connection are, and
        the others unless they were asked lately.
        """
        if len(records) <= MAX_CANDIDATES:
            return await self._ask(self._connections, records)
        kept = [record for record in records if self._connections.has(record)]
        results = await self._ask(self._connections, kept)
        asked = {record.peer_id for record in kept}
        others = [record for record in records if record.peer_id not in asked]
        await self._visit([record for record in others if not self._is_known(record)])
        self._tried = {record.peer_id: self._tried[record.peer_id] for record in others}
        results |= {peer_id: tried.result for peer_id, tried in self._tried.items() if tried.result}
        return results

    async def close(self) -> None:
        """Close the connections that it opened. May be called twice."""
        await self._visits.close()

    async def _visit(self, records: Sequence[PeerRecord]) -> None:
        """Dial these peers, note how they answer, and hang up."""
        for start in range(0, len(records), MAX_CANDIDATES):
            some = records[start : start + MAX_CANDIDATES]
            results = await self._ask(self._visits, some)
            await self._visits.keep(())
            for record in some:
                result = results.get(record.peer_id)
                self._tried[record.peer_id] = _Tried(record.addresses, self._clock(), result)

    async def _ask(
        self, connections: Connections, records: Sequence[PeerRecord]
    ) -> dict[str, PingResult]:
        results: dict[str, PingResult] = {}
        for start in range(0, len(records), MAX_CANDIDATES):
            reached = await connections.reach(records[start : start + MAX_CANDIDATES])
            results |= {
                peer_id: PingResult.over(connection) for peer_id, connection in reached.items()
            }
        return results

    def _is_known(self, record: PeerRecord) -> bool:
        """Whether the peer was asked lately, at the addresses that it has now."""
        tried = self._tried.get(record.peer_id)
        if tried is None or tried.addresses != record.addresses:
            return False
        lasts_s = ANSWERED_S if tried.result else SILENT_S
        return self._clock() - tried.at_s < lasts_s
