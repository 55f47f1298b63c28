"""What a peer has done since it started."""

from collections import Counter
from dataclasses import dataclass, field

from swarm.network.links.link import Link
from swarm.wire.messages import FaultCode


@dataclass
class Tally:
    """Running totals, each counted by whoever does the thing. None is ever taken back.

    Attributes:
        batches: forward passes, and `turns` of sessions that were part of them.
        tokens: computed, each once for all layers of its session here.
        compute_s: seconds in which the compute thread was busy.
        queue_s: seconds that turns have waited for batches of others, all together.
        opened: sessions.
        reroutes: of sessions, to another next peer; `replays`: those in which it has to be told all
            once more.
        bytes_sent, bytes_received: over links that are closed.
        faults: that clients were told, by their code.
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
        """A link is over."""
        self.bytes_sent += link.bytes_sent
        self.bytes_received += link.bytes_received
