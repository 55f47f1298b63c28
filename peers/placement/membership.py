"""Which peers serve a model right now, as far as a decision about layers depends on it.

Records outlive peers that died. So the peers that matter are pinged: in a small swarm all, in a
large one those of the layers that fewest peers serve, and of this peer's own layers.
"""

import logging
from collections.abc import Collection, Iterable
from statistics import median

from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections, candidates
from swarm.routing.placement import ServedSpan, Span

EVERYBODY = 16  # in a swarm of up to this many peers, all are pinged
ASK_AT_ONCE = 16  # in a larger one
# of pings: when silent peers leave other layers the weakest, the peers of those come next
ROUNDS = 4
UNKNOWN_SPEED = 1.0  # tokens per second, while no peer has measured anything

log = logging.getLogger(__name__)


class Membership:
    """Looks at a swarm for one peer, leaving out that peer's own record.

    Args:
        dialer: opens links for pings; none stays open.

    Attributes:
        peers: in the swarm, when the directory was last read.
    """

    def __init__(
        self,
        directory: Directory,
        dialer: Dialer,
        fingerprint: str,
        model_layers: int,
        peer_id: str,
    ) -> None:
        self._directory = directory
        self._dialer = dialer
        self._fingerprint = fingerprint
        self._model_layers = model_layers
        self._peer_id = peer_id
        self.peers = 0

    async def take(self, mine: Span | None = None) -> list[PeerRecord] | None:
        """Return the records of peers that serve layers or are about to, without those found dead.

        Returns None if not a single peer answers: then it is this peer that has no connection.
        Raises `DirectoryDown`.

        Args:
            mine: the layers served here: peers that serve the same have to be alive before these
                are given up.
        """
        found = await self._directory.survey(self._fingerprint, self._model_layers)
        self.peers = found.total
        left = {
            r.peer_id: r
            for r in found.records
            if r.peer_id != self._peer_id and r.state in ("online", "joining")
        }
        asked: set[str] = set()
        answered = 0
        connections = Connections(self._dialer)
        try:
            for _ in range(ROUNDS):
                doubtful = [
                    r
                    for r in decisive(left.values(), self._model_layers, mine)
                    if r.peer_id not in asked
                ]
                if not doubtful:
                    break
                doubtful = candidates(doubtful, ASK_AT_ONCE)
                reached: dict[str, Connection] = await connections.reach(doubtful)
                asked |= {record.peer_id for record in doubtful}
                answered += len(reached)
                for record in doubtful:
                    if record.peer_id not in reached:
                        log.info("peer ...%s does not answer: not counted", record.peer_id[-8:])
                        del left[record.peer_id]
        finally:
            await connections.close()
        return None if asked and not answered else list(left.values())


def decisive(
    records: Collection[PeerRecord], model_layers: int, mine: Span | None
) -> list[PeerRecord]:
    """Return the peers whose death would change a decision.

    They serve the layers that fewest peers serve, or those in ``mine``.
    """
    if len(records) <= EVERYBODY:
        return list(records)
    counts = [0] * model_layers
    for record in records:
        for layer in range(record.first_layer, record.last_layer):
            counts[layer] += 1
    least = min(counts)
    matter = {layer for layer, count in enumerate(counts) if count == least} | set(
        range(*(mine or (0, 0)))
    )
    return [r for r in records if not matter.isdisjoint(range(r.first_layer, r.last_layer))]


def as_serving(records: Iterable[PeerRecord]) -> list[ServedSpan]:
    """Return records as `swarm.routing.placement` takes them.

    A peer that has not measured its speed yet counts as fast as the others are.
    """
    records = list(records)
    speed = usual_speed(records)
    return [
        ServedSpan(
            r.peer_id,
            r.first_layer,
            r.last_layer,
            r.tokens_per_second if r.state == "online" else speed,
        )
        for r in records
    ]


def usual_speed(records: Iterable[PeerRecord]) -> float:
    """Return the median tokens per second of the peers that serve."""
    return median([r.tokens_per_second for r in records if r.state == "online"] or [UNKNOWN_SPEED])
