"""What comes over a connection for one session, and the queue in which it waits to be read."""

import asyncio
from dataclasses import dataclass

from swarm.network.links.link import LinkClosed
from swarm.wire.codec import WireError
from swarm.wire.messages import WireMessage


@dataclass(frozen=True)
class Arrival:
    """A message for a session, or the reason why no more will come.

    Attributes:
        at: when it came, in seconds of the connection's clock; the session may read it much later.
        nbytes: of the message on the wire.
    """

    peer_id: str
    message: WireMessage | LinkClosed | WireError
    at: float
    nbytes: int = 0


class ArrivalQueue(asyncio.Queue[Arrival]):
    """Arrivals of one session, bounded in number and in bytes.

    Args:
        most: arrivals that may wait.

    Attributes:
        most_bytes: of all messages that may wait.
        nbytes: of those that do.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(most)
        self.most_bytes = most_bytes
        self.nbytes = 0

    def put_nowait(self, item: Arrival) -> None:
        """Add an arrival. Raises `asyncio.QueueFull` if it has no room."""
        if item.nbytes and self.nbytes + item.nbytes > self.most_bytes:
            raise asyncio.QueueFull
        super().put_nowait(item)

    def put_last(self, item: Arrival) -> None:
        """Add the end of a connection, in place of an older arrival if there are too many."""
        if self.full():
            self.get_nowait()
        self.put_nowait(item)

    def _put(self, item: Arrival) -> None:
        self.nbytes += item.nbytes
        super()._put(item)

    def _get(self) -> Arrival:
        item = super()._get()
        self.nbytes -= item.nbytes
        return item
