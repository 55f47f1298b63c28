"""What comes from the peers of a session, and what goes to them."""

from dataclasses import dataclass
from typing import Generic

from swarm.chain.members import P
from swarm.wire.messages import WireMessage


@dataclass(frozen=True)
class Received:
    """A message came from a peer; ``at`` is when, in seconds of the session's clock."""

    peer_id: str
    message: WireMessage
    at: float


@dataclass(frozen=True)
class Lost:
    """The connection to a peer ended, and why."""

    peer_id: str
    why: str
    at: float


Event = Received | Lost


@dataclass(frozen=True)
class Outgoing(Generic[P]):
    """A message to send to a peer."""

    to: P
    message: WireMessage
