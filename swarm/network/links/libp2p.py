"""Links through libp2p: one stream each, for peers that cannot be dialled directly.

libp2p's handshake proves the id of the other side, through any relays. On a stream every message
follows its length in four bytes; a length of zero is a sign of life.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from hivemind.p2p import P2P, P2PDaemonError, PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.network.links import link as links
from swarm.network.links.address import RelayedAddress
from swarm.network.links.handshake import RELAYED, HandshakeLimiter
from swarm.network.links.link import HEARTBEAT_S, Link, LinkClosed
from swarm.util.tasks import end, within
from swarm.wire.codec import WireError

PROTOCOL = "swarm/link/1"
READ_BYTES = 1 << 16  # taken from the daemon at a time
_LENGTH = struct.Struct(">I")
# 421 and 290, the codes of parts of a multiaddr, as varints
_P2P, _P2P_CIRCUIT = b"\xa5\x03", b"\xa2\x02"

StreamPair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StreamLink(Link):
    """A link over a stream of libp2p, whose bytes pass through our own daemon."""

    relayed = True

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        address: str,
        delay_ms: float = 0.0,
        binding: bytes = b"",
    ) -> None:
        super().__init__(writer.transport, address, delay_ms, binding)
        self._reader = reader
        self._writer = writer
        # the beginning of what has not been received yet: a message and `READ_BYTES` at most
        self._got = bytearray()
        self._turn = asyncio.Lock()  # of senders: each has one message in the buffer, or none
        # since when we read and hear nothing, on the event loop's clock
        self._waits_since: float | None = None
        self._heart = asyncio.create_task(self._beat())

    async def close(self) -> None:
        await end(self._heart)
        await super().close()

    async def _write(self, message: bytes) -> None:
        async with self._turn:
            self._writer.writelines((_LENGTH.pack(len(message)), message))
            await self._writer.drain()

    async def _read(self, most: int) -> bytes:
        while True:
            message = self._complete(most)
            if message:
                return message
            if message is None:
                await self._get_more()

    def _complete(self, most: int) -> bytes | None:
        """The first message that has come, empty for a sign of life; None if it has not come as a
        whole."""
        if len(self._got) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._got)
        if length > most:
            raise WireError(f"{length} bytes, at most {most} are allowed")
        end = _LENGTH.size + length
        if len(self._got) < end:
            return None
        message = bytes(self._got[_LENGTH.size : end])
        del self._got[:end]
        return message

    async def _get_more(self) -> None:
        self._waits_since = asyncio.get_running_loop().time()
        try:
            more = await self._reader.read(READ_BYTES)
        except OSError as error:
            raise LinkClosed(self.address, self._lost or str(error)) from None
        finally:
            self._waits_since = None
        if not more:
            self._lost = self._lost or "the other side left"
            raise LinkClosed(self.address, self._lost)
        self._got += more

    async def _sign(self) -> None:
        if not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._writer.write(_LENGTH.pack(0))  # else bytes are leaving anyway

    async def _beat(self) -> None:
        """Give signs of life, and miss those of the other side."""
        while not self.closed:
            await asyncio.sleep(HEARTBEAT_S / 2)
            silence_s = (
                asyncio.get_running_loop().time() - self._waits_since if self._waits_since else 0.0
            )
            if silence_s > 1.5 * HEARTBEAT_S:
                self._cut(f"silent for {silence_s:.0f} s")
            await self._sign()

    async def _say_goodbye(self) -> None:
        self._writer.close()
        # we may be cancelled, and what all wait for must not
        await asyncio.shield(self._writer.wait_closed())

    @property
    def _is_shut(self) -> bool:
        return self._transport.is_closing()


class Streams:
    """Opens and accepts links over a libp2p daemon, which its owner starts and stops.

    Close it before the daemon stops.
    """

    def __init__(self, daemon: P2P) -> None:
        self._daemon = daemon
        # streams that were given up, but that the daemon may still open
        self._late: set[asyncio.Task[StreamPair]] = set()

    async def open(self, address: str, delay_ms: float = 0.0) -> StreamLink:
        """Open a link to the peer at a relayed address.

        Raises:
            LinkClosed: if it does not answer in `CONNECT_TIMEOUT_S`, or the address is not one.
        """
        try:
            place = RelayedAddress.parse(address)
        except ValueError as error:
            raise LinkClosed(address, str(error)) from None
        dialling = asyncio.create_task(self._dial(place))
        try:
            await asyncio.wait({dialling}, timeout=links.CONNECT_TIMEOUT_S)
        except BaseException:
            self._leave(dialling)
            raise
        if not dialling.done():
            self._leave(dialling)
            raise LinkClosed(address, f"no answer in {links.CONNECT_TIMEOUT_S:g} s")
        try:
            return StreamLink(
                *dialling.result(), address, delay_ms, self._binding(self._own_id, place.peer_id)
            )
        except (P2PDaemonError, OSError, EOFError, ValueError) as error:
            raise LinkClosed(address, _first_line(error)) from None

    async def serve(
        self,
        limiter: HandshakeLimiter,
        handle: Callable[[Link], Awaitable[None]],
        delay_ms: float = 0.0,
    ) -> None:
        """Pass every link that completes the handshake to ``handle``.

        The link is closed when ``handle`` returns.
        """

        async def take(
            info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            caller = str(info.peer_id)
            binding = self._binding(caller, self._own_id)
            async with StreamLink(reader, writer, f"...{caller[-8:]}", delay_ms, binding) as link:
                ticket = limiter.enter(RELAYED)
                if ticket is None:
                    return
                try:
                    admitted = await limiter.admits(link)
                finally:
                    ticket.end()
                if admitted:
                    await handle(link)

        await self._daemon.add_binary_stream_handler(PROTOCOL, take)

    async def leads(self, place: RelayedAddress) -> bool:
        """Return whether the peer at a relayed address can be reached now: dial it and hang up."""
        with contextlib.suppress(LinkClosed):
            link = await self.open(str(place))
            await link.close()
            with contextlib.suppress(asyncio.TimeoutError, P2PDaemonError, OSError, EOFError):
                await within(
                    links.CLOSE_TIMEOUT_S,
                    self._daemon._client.disconnect(PeerID.from_base58(place.peer_id)),
                )
            return True
        return False

    async def close(self) -> None:
        await end(*self._late)

    @property
    def _own_id(self) -> str:
        return str(self._daemon.peer_id)

    @staticmethod
    def _binding(caller: str, called: str) -> bytes:
        """libp2p has proved both ids, which no other two daemons have."""
        return f"libp2p:{caller}/{called}".encode()

    async def _dial(self, place: RelayedAddress) -> StreamPair:
        peer = PeerID.from_base58(place.peer_id)
        await self._daemon._client.connect(peer, [_Circuit(place)])
        _, reader, writer = await self._daemon.call_binary_stream_handler(peer, PROTOCOL)
        return reader, writer

    def _leave(self, dialling: "asyncio.Task[StreamPair]") -> None:
        """Close a stream that is no longer wanted as soon as it opens: dialling cannot be
        stopped."""
        self._late.add(dialling)
        dialling.add_done_callback(self._discard)

    def _discard(self, dialling: "asyncio.Task[StreamPair]") -> None:
        self._late.discard(dialling)
        if not dialling.cancelled() and dialling.exception() is None:
            dialling.result()[1].close()


class _Circuit:
    """A place's multiaddr as the daemon reads it. hivemind's own writes a peer id in a form that
    go-libp2p refuses."""

    def __init__(self, place: RelayedAddress) -> None:
        self._place = place

    def to_bytes(self) -> bytes:
        where, _, relay = self._place.relay.rpartition("/p2p/")
        peer_id: bytes = PeerID.from_base58(relay).to_bytes()
        address: bytes = Multiaddr(where).to_bytes()
        return address + _P2P + bytes([len(peer_id)]) + peer_id + _P2P_CIRCUIT


def _first_line(error: Exception) -> str:
    """libp2p tells every address that it tried, each in a line of its own."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
