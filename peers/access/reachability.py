"""The addresses by which others reach this peer: direct ones if they can, else at relays."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from peers.access.entering import insist
from peers.events import Emit, PeerEvent
from swarm.config import Network
from swarm.errors import NetworkUnreachable, SwarmError
from swarm.network.dht.directory import Directory
from swarm.network.links.address import join, split
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.link import Link
from swarm.network.nat.dialback import DialRequest, DialResponse, ask
from swarm.network.nat.relay import Relay

PLACE_TIMEOUT_S = 30.0  # for a reservation at a relay; it takes a second as a rule
LOOK_S = 60.0  # between two looks at our reservations, which go and come with relays
ASK_S = 300.0  # between two questions whether this peer is reachable
# failed questions in a row after which a direct address is no longer announced
MAX_FAILED = 2

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Unreachable(NetworkUnreachable):
    """No other member can dial this computer, and no relay has a place for it."""

    address: str

    def __str__(self) -> str:
        port = self.address.rpartition(":")[2]
        return (
            f"no other member gets through to {self.address} from outside, and no bootstrap node"
            f" relays for this peer; forward port {port} on the router (and give that --port),"
            " or name a bootstrap node that relays"
        )


@dataclass(frozen=True)
class Reachability:
    """Whether others get through to a peer directly.

    Attributes:
        direct: addresses to announce; those of the open internet first.
        verified: at least one node has tried.
        whole: no node that tried has failed.
        seen: the addresses of this computer as others see it.
    """

    direct: tuple[str, ...]
    verified: bool
    whole: bool
    seen: tuple[str, ...] = ()


def judge(answers: Sequence[DialResponse], address: str) -> Reachability:
    """Weigh the answers about ``address``. If no node tried, it is taken to be reachable."""
    tried = [answer for answer in answers if answer.tried is not None]
    worked = {answer.tried: None for answer in tried if answer.worked and answer.tried}
    seen = tuple({each: None for answer in answers for each in answer.seen})
    if not tried:
        return Reachability((address,), verified=False, whole=True, seen=seen)
    direct = tuple(sorted(worked, key=_is_inside))
    return Reachability(
        direct, verified=True, whole=all(answer.worked for answer in tried), seen=seen
    )


class AnnouncedAddresses:
    """The addresses that a peer announces, kept up to date.

    Args:
        address: "host:port" at which this peer takes itself to be reachable.
        limiter: by which links come in.
        serve: has every link that comes over a relay.
        exact: the operator named the address; no other one is tried.
        delay_ms: emulated one-way delay of what is sent over relayed links.
    """

    def __init__(
        self,
        network: Network,
        address: str,
        limiter: HandshakeLimiter,
        serve: Callable[[Link], Awaitable[None]],
        *,
        exact: bool = False,
        delay_ms: float = 0.0,
    ) -> None:
        self.address = address
        self._network = network
        self._limiter = limiter
        self._serve = serve
        self._delay_ms = delay_ms
        certificate = limiter.me.identity.certificate_fingerprint
        self._question = DialRequest(address=address, certificate=certificate, exact=exact)
        self._direct: tuple[str, ...] = (address,)
        self._places: tuple[str, ...] = ()
        self._relay: Relay | None = None
        self._failed = 0  # times in a row

    @property
    def addresses(self) -> tuple[str, ...]:
        """To announce, best first."""
        return self._direct + self._places

    @property
    def places(self) -> tuple[str, ...]:
        """The addresses at relays, a part of `addresses`."""
        return self._places

    @property
    def is_direct(self) -> bool:
        """Whether a direct address is announced."""
        return bool(self._direct)

    async def ask(self, emit: Emit) -> None:
        """Find out for the first time whether this peer can be dialled. The caller calls `close`.

        Raises:
            NoBootstrap, DirectoryDown: if no node can be asked.
        """
        if _is_loopback(self.address):
            return  # only this computer has it: there is no other node to ask
        self._relay = await insist(lambda: Relay.start(self._network), emit)
        await self._relay.streams.serve(self._limiter, self._serve, self._delay_ms)
        verdict = judge(await self._relay.ask(self._question), self.address)
        self._direct = verdict.direct
        if not verdict.verified:
            sentence = (
                f"no node could be asked to dial back {self.address}: it is announced unverified"
            )
            emit(PeerEvent("unverified", sentence, {"address": self.address}))
        if verdict.whole:
            await self.close()
            return
        where = f" (this computer is seen at {', '.join(verdict.seen)})" if verdict.seen else ""
        sentence = (
            f"{self.address} cannot be dialled from everywhere{where}: this peer comes in through a"
            " relay"
        )
        emit(PeerEvent("relayed", sentence, {"address": self.address, "seen": verdict.seen}))

    async def enter(self, directory: Directory) -> None:
        """Wait for a reservation at a relay, if one is needed.

        Raises:
            Unreachable: if this peer has no address at all.
        """
        if self._relay is not None:
            self._places = await self._relay.wait_for_place(directory.streams, PLACE_TIMEOUT_S)
        if not self.addresses:
            raise Unreachable(self.address)

    async def keep(self, directory: Directory) -> None:
        """Keep the addresses up to date until cancelled."""
        if _is_loopback(self.address):
            await asyncio.Event().wait()
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._relay is not None:
                places = await self._relay.places(directory.streams)
                # a relay that restarts comes back
                self._places = places if self._direct else places or self._places
            if loop.time() - asked_at >= ASK_S:
                await self.ask_again(directory)
                asked_at = loop.time()

    async def ask_again(self, directory: Directory) -> None:
        """Ask once more, and change what is announced.

        A direct address is given up after `MAX_FAILED` answers in a row that it does not work.
        """
        answers = await ask(directory.daemon, self._network.bootstrap, self._question)
        verdict = judge(answers, self.address)
        if not verdict.verified:
            return
        if verdict.direct:
            self._direct = verdict.direct
            self._failed = 0
            return
        self._failed += 1
        if self._direct and self._failed >= MAX_FAILED:
            log.warning("%s cannot be dialled from outside any more", self.address)
            if self._relay is None:
                await self._switch(directory)
            if self._places:
                self._direct = ()

    async def close(self) -> None:
        """Give back all reservations. Safe to call twice."""
        relay = self._relay
        self._relay = None
        self._places = ()
        if relay is not None:
            await relay.stop()

    async def _switch(self, directory: Directory) -> None:
        try:
            self._relay = await Relay.start(self._network)
        except SwarmError as error:
            log.warning("no way in through a relay either: %s", error)
        else:
            await self._relay.streams.serve(self._limiter, self._serve, self._delay_ms)
            self._places = await self._relay.wait_for_place(directory.streams, PLACE_TIMEOUT_S)


@contextlib.asynccontextmanager
async def asked(reach: AnnouncedAddresses, emit: Emit) -> AsyncIterator[AnnouncedAddresses]:
    """Find out by which addresses others get through; give the reservations back on the way out."""
    try:
        await reach.ask(emit)
        yield reach
    finally:
        await reach.close()


def own_address(host: str, port: int) -> str:
    """Return the address of this computer that others can dial.

    If it listens on all addresses, that is the one by which it would reach the internet.
    """
    if host != "0.0.0.0":
        return join(host, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # nothing is sent: this only asks for the route (RFC 5737 test address)
            probe.connect(("192.0.2.1", 9))
            return join(str(probe.getsockname()[0]), port)
        except OSError:
            return join("127.0.0.1", port)


def _is_loopback(address: str) -> bool:
    host, _ = split(address)
    return host == "localhost" or _is_ip(host, lambda ip: ip.is_loopback)


def _is_inside(address: str | None) -> bool:
    """Whether an address belongs to a local network; a host name does not."""
    return address is not None and _is_ip(split(address)[0], lambda ip: not ip.is_global)


def _is_ip(host: str, has: Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]) -> bool:
    try:
        return has(ipaddress.ip_address(host))
    except ValueError:
        return False
