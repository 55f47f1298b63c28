"""What a peer has done since it started."""

from collections import Counter
from dataclasses import dataclass, field

from swarm.network.links.link import Link
from swarm.wire.faults import FaultCode


@dataclass
class Counters:
    """Running totals; none ever falls.

    Attributes:
        batches: forward passes.
        turns: of sessions in these batches.
        tokens: computed, each once for all layers of its session here.
        compute_s: seconds in which the compute thread was busy.
        queue_s: seconds that all turns together have waited for batches of other sessions.
        opened: sessions.
        reroutes: of sessions, to another next peer.
        replays: reroutes for which the new peer gets everything once more.
        bytes_sent, bytes_received: over links that are closed.
        faults: sent to clients, by their code.
    """

    batches: int = 0
    turns: int = 0
    tokens: int = 0
    compute_s: float = 0.0
    queue_s: float = 0.0
    opened: int = 0
    reroutes: int = 0
    replays: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    faults: Counter[FaultCode] = field(default_factory=Counter)

    def closed(self, link: Link) -> None:
        """Add the bytes of a link that is closed."""
        self.bytes_sent += link.bytes_sent
        self.bytes_received += link.bytes_received
