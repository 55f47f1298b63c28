"""Opens links to addresses of either form, to peers that prove who they are."""

from swarm.network.links.address import is_relayed
from swarm.network.links.handshake import introduce
from swarm.network.links.libp2p import Streams
from swarm.network.links.link import Link, LinkClosed
from swarm.network.links.websocket import WebSockets
from swarm.wire.codec import speaks
from swarm.wire.handshake import LocalMember
from swarm.wire.messages import Behalf


class Dialer:
    """Opens links. One per process; close it at the end.

    Attributes:
        streams: for relayed addresses; None while there is no libp2p daemon. Its owner closes it.

    Args:
        me: the member that dials.
        delay_ms: emulated one-way delay of the messages that are sent over the links.
        speaks_for: for how many clients a gateway asks; sent to peers whose version of the protocol
            has `Behalf`.
    """

    def __init__(
        self,
        me: LocalMember,
        delay_ms: float = 0.0,
        streams: Streams | None = None,
        speaks_for: int = 1,
    ) -> None:
        self.me = me
        self.delay_ms = delay_ms
        self.streams = streams
        self.speaks_for = speaks_for
        self._websockets = WebSockets()

    async def connect(self, address: str, certificate: str, peer_id: str) -> Link:
        """Open a link to a peer, which has proved its id.

        At ``host:port`` the peer must also show the certificate of that SHA-256 fingerprint (hex).
        At a relay it must be the libp2p node of the address.

        Raises:
            LinkClosed: if it does not answer in `CONNECT_TIMEOUT_S`, is another peer, or refuses
            us.
        """
        link = await self._open(address, certificate)
        await introduce(link, self.me, peer_id)
        if self.speaks_for > 1 and speaks(link.version, Behalf):
            await link.send(Behalf(clients=self.speaks_for))
        return link

    async def close(self) -> None:
        await self._websockets.close()

    async def _open(self, address: str, certificate: str) -> Link:
        if not is_relayed(address):
            return await self._websockets.open(address, certificate, self.delay_ms)
        if self.streams is None:
            raise LinkClosed(address, "it is at a relay, and we have no libp2p daemon to go there")
        return await self.streams.open(address, self.delay_ms)
