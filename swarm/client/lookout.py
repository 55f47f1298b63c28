"""Which peers answer, for those who look at a swarm again and again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.pool import MAX_CANDIDATES, Connections

# Of a large swarm a client keeps few connections, and dials the others only to see whether they
# answer. A record is fresh proof that its peer lives, so whether it can be reached need not be
# tried as often.
ANSWERED_S = 300.0  # that a peer which answered is taken to answer
SILENT_S = 60.0  # that one which did not is taken not to

Path = Literal["direct", "relay"]


@dataclass(frozen=True)
class Answer:
    """How a peer answers."""

    rtt_ms: float
    path: Path

    @classmethod
    def over(cls, connection: Connection) -> "Answer":
        """As it answered over this connection."""
        return cls(connection.rtt_ms, "relay" if connection.link.relayed else "direct")


@dataclass(frozen=True)
class _Tried:
    addresses: tuple[str, ...]
    at_s: float
    answer: Answer | None


class Lookout:
    """Asks peers whether they answer. Close it at the end.

    Args:
        dialer: opens the connections that are closed once a peer has answered.
        connections: those that a client has anyhow, used where there are some.
        clock: seconds, never turned back.
    """

    def __init__(
        self, dialer: Dialer, connections: Connections, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._visits = Connections(dialer)
        self._connections = connections
        self._clock = clock
        self._tried: dict[str, _Tried] = {}

    async def ask(self, records: Sequence[PeerRecord]) -> dict[str, Answer]:
        """How they answer, by peer id; those that do not are left out.

        In a small swarm all are asked now. In a large one those with a connection are, and the
        others unless they were lately.
        """
        if len(records) <= MAX_CANDIDATES:
            return {
                peer_id: Answer.over(connection)
                for peer_id, connection in (await self._connections.reach(records)).items()
            }
        kept = [record for record in records if self._connections.has(record)]
        answers = await self._ask(self._connections, kept)
        asked = {record.peer_id for record in kept}
        others = [record for record in records if record.peer_id not in asked]
        await self._visit([record for record in others if not self._is_known(record)])
        self._tried = {record.peer_id: self._tried[record.peer_id] for record in others}
        answers |= {peer_id: tried.answer for peer_id, tried in self._tried.items() if tried.answer}
        return answers

    async def close(self) -> None:
        """May be called twice."""
        await self._visits.close()

    async def _visit(self, records: Sequence[PeerRecord]) -> None:
        """Dial them, note how they answer, and hang up."""
        for start in range(0, len(records), MAX_CANDIDATES):
            some = records[start : start + MAX_CANDIDATES]
            answers = await self._ask(self._visits, some)
            await self._visits.keep(())
            for record in some:
                answer = answers.get(record.peer_id)
                self._tried[record.peer_id] = _Tried(record.addresses, self._clock(), answer)

    async def _ask(
        self, connections: Connections, records: Sequence[PeerRecord]
    ) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for start in range(0, len(records), MAX_CANDIDATES):
            reached = await connections.reach(records[start : start + MAX_CANDIDATES])
            answers |= {peer_id: Answer.over(connection) for peer_id, connection in reached.items()}
        return answers

    def _is_known(self, record: PeerRecord) -> bool:
        """Whether it was asked lately, at the addresses that it has now."""
        tried = self._tried.get(record.peer_id)
        if tried is None or tried.addresses != record.addresses:
            return False
        lasts_s = ANSWERED_S if tried.answer else SILENT_S
        return self._clock() - tried.at_s < lasts_s
