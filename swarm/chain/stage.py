"""What a client knows of the peers of one chain, and how it says that one of them failed."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from swarm.errors import ExitCode, SwarmError
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.routing.chain import Stage
from swarm.util.tasks import within
from swarm.wire.messages import FaultCode, Hop, Message

GOODBYE_TIMEOUT_S = 0.5
# A peer that says so is in order; perhaps it is we who are not. A session may just have ended, and
# why is on its way.
NO_FAILURE = frozenset(
    {
        *(FaultCode.NO_HISTORY, FaultCode.DRAINING, FaultCode.BUSY),
        *(FaultCode.WRONG_LAYERS, FaultCode.BAD_MESSAGE, FaultCode.NO_SESSION),
    }
)


class ChainBroken(SwarmError):
    """A peer of the chain failed. ``code`` is what it said itself, if it said anything."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(
        self, peer_id: str, layers: tuple[int, int], why: str, code: FaultCode | None = None
    ) -> None:
        super().__init__(peer_id, layers, why, code)
        self.peer_id, self.layers, self.why, self.code = peer_id, layers, why, code

    @property
    def is_failure(self) -> bool:
        """Whether the peer itself is out of order."""
        return self.code not in NO_FAILURE

    @property
    def is_news(self) -> bool:
        """Whether the peer is not as its record says."""
        return self.code in (FaultCode.WRONG_LAYERS, FaultCode.DRAINING)

    def __str__(self) -> str:
        first, last = self.layers
        return (
            f"the peer ...{self.peer_id[-8:]} (layers {first}:{last}) failed: {self.why}; "
            "run the command again, another route will be chosen if there is one"
        )


class Implausible(ChainBroken):
    """What the last peer answered cannot be an answer of the model: it, or one before it, computes
    something else."""


class ChainSilent(SwarmError):
    """No answer came for much longer than a loop takes, and nobody said that anything failed."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the chain has not answered for {self.seconds:.1f} s; run the command again"


async def take_leave(connection: Connection, message: Message) -> None:
    """Say a last word to a peer. Never fails; one that takes nothing is told nothing."""
    with suppress(SwarmError, asyncio.TimeoutError):
        await within(GOODBYE_TIMEOUT_S, connection.send(message))


@dataclass(frozen=True)
class ChainLink:
    """One stage of a chain with the connection to its peer."""

    stage: Stage
    record: PeerRecord
    connection: Connection

    @property
    def peer_id(self) -> str:
        return self.stage.peer_id

    @property
    def layers(self) -> tuple[int, int]:
        return self.stage.first, self.stage.last

    @property
    def hop(self) -> Hop:
        """How the peer before it reaches it: the address at which it answered us is the best one
        there is."""
        return Hop(
            peer_id=self.record.peer_id,
            address=self.connection.link.address,
            certificate=self.record.certificate,
        )
