"""The peers of one chain, as the client is connected to them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from swarm.errors import SwarmError
from swarm.network.dht.records import PeerRecord
from swarm.network.links.connection import Connection
from swarm.routing.chain import Stage
from swarm.util.tasks import within
from swarm.wire.messages import Hop, WireMessage

GOODBYE_TIMEOUT_S = 0.5


async def take_leave(connection: Connection, message: WireMessage) -> None:
    """Send a last message to a peer, for `GOODBYE_TIMEOUT_S` at most. Never raises an error."""
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
        """How the peer before it reaches this peer: at the address at which it answered the
        client."""
        return Hop(
            peer_id=self.record.peer_id,
            address=self.connection.link.address,
            certificate=self.record.certificate,
        )
