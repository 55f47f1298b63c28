"""The other side broke its word."""

from dataclasses import dataclass

from swarm.errors.bases import RemoteViolation
from swarm.errors.unavailable import ChainBroken


@dataclass(eq=False)
class InvalidRecord(RemoteViolation):
    """A record of the DHT breaks the schema, or is not ours to publish; `reason` names the rule."""

    reason: str

    def __str__(self) -> str:
        return f"Not a valid directory record: {self.reason}."


class Implausible(ChainBroken, RemoteViolation):
    """The last peer's answer cannot come from the model: that peer, or one before it, computes
    something else."""
