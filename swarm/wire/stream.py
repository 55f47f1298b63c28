"""Frames are positions of a stream: one rule for rollback, cancellation, retransmission and idempotence."""

from dataclasses import dataclass

from swarm.errors import SwarmError


class OutOfOrder(SwarmError):
    """A frame does not continue the stream: the sender's fault."""

    def __init__(self, epoch: int, start: int, stream: "Stream") -> None:
        super().__init__(epoch, start)
        self.epoch, self.start = epoch, start
        self.stream_epoch, self.stream_length = stream.epoch, stream.length

    def __str__(self) -> str:
        return (
            f"a frame of epoch {self.epoch} starts at {self.start}, "
            f"but the stream of epoch {self.stream_epoch} has {self.stream_length} positions"
        )


@dataclass
class Stream:
    """Where a session's stream stands on one peer: its epoch and how many positions it holds."""

    epoch: int = 0
    length: int = 0
    floor: int = 0  # epochs below are stale, because the client said so ahead of its frames

    def admit(self, epoch: int, start: int, count: int) -> bool:
        """Place ``count`` positions from ``start`` on.

        An older epoch is stale and answered with False. A newer one cuts the stream to ``start``
        (the caller cuts its KV likewise). Within an epoch frames follow each other without a gap.

        Raises:
            OutOfOrder: if the frame would leave a gap or, within its epoch, repeat positions.
        """
        if epoch < max(self.epoch, self.floor):
            return False
        if start > self.length or (epoch == self.epoch and start != self.length):
            raise OutOfOrder(epoch, start, self)
        self.epoch, self.length = epoch, start + count
        return True

    def cancel(self, epoch: int) -> None:
        """Frames of epochs before ``epoch`` are stale from now on, whether or not a newer one has come."""
        self.floor = max(self.floor, epoch)
