"""Who serves a model right now, as far as a decision about layers depends on it.

Records of peers that died live on for a while. So those who matter are pinged: in a small swarm
everybody, in a large one the peers of the layers that fewest serve, and of one's own.
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

EVERYBODY = 16  # a swarm of so many is asked as a whole
ASK_AT_ONCE = 16  # of a larger one
# of asking: where those who do not answer leave other layers the weakest, their peers come next
ROUNDS = 4
UNKNOWN_SPEED = 1.0  # tokens per second, where nobody has measured anything yet

log = logging.getLogger(__name__)


class Census:
    """Looks at the swarm for one peer, whose own record is left out.

    Args:
        dialer: for links over which pings go; none stays open.
    """

    def __init__(
        self,
        directory: Directory,
        dialer: Dialer,
        fingerprint: str,
        model_layers: int,
        peer_id: str,
    ) -> None:
        self._directory, self._dialer = directory, dialer
        self._fingerprint, self._model_layers, self._peer_id = fingerprint, model_layers, peer_id
        self.peers = 0  # in the swarm, when the directory was last asked

    async def take(self, mine: Span | None = None) -> list[PeerRecord] | None:
        """Records of those who serve layers or are about to, without those that turned out to be
        gone.

        None if nobody at all answers, which says more about us than about them. Raises
        `DirectoryDown`.

        Args:
            mine: layers that are served here: whoever serves the same has to be there before they
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
    """Those whose death would change a decision: of the layers that fewest serve, and of our
    own."""
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
    """As the policy sees them.

    Whoever has not measured yet is taken to be as fast as others are.
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
    """Tokens per second: the median of those who serve."""
    return median([r.tokens_per_second for r in records if r.state == "online"] or [UNKNOWN_SPEED])
