"""Opens links to addresses of either form."""

from swarm.network.address import is_place
from swarm.network.link import Link, LinkClosed
from swarm.network.stream import Streams
from swarm.network.websocket import WebSockets


class Dialer:
    """Opens links. One per process; close it at the end.

    Attributes:
        streams: for places at relays; None as long as there is no libp2p daemon. Its owner closes it.

    Args:
        delay_ms: emulated one-way delay of what is sent over the links.
    """

    def __init__(self, delay_ms: float = 0.0, streams: Streams | None = None) -> None:
        self.delay_ms, self.streams = delay_ms, streams
        self._websockets = WebSockets()

    async def connect(self, address: str, certificate: str) -> Link:
        """A link to whoever is at an address: at ``host:port`` it must show the certificate of that SHA-256 fingerprint
        (hex), at a relay prove the id that is part of the address.

        Raises:
            LinkClosed: if nobody answers in `CONNECT_TIMEOUT_S`, or somebody else does.
        """
        if not is_place(address):
            return await self._websockets.open(address, certificate, self.delay_ms)
        if self.streams is None:
            raise LinkClosed(address, "it is at a relay, and we have no libp2p daemon to go there")
        return await self.streams.open(address, self.delay_ms)

    async def close(self) -> None:
        await self._websockets.close()
