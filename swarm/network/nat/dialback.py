"""Dial-back: a bootstrap node dials a peer, and answers whether that worked and where it saw it.

Against misuse it dials only the computer that asks: the address that libp2p sees, or, if that is
loopback, one of its own. It dials one address a few times a minute, and few at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Annotated, TypeVar

import msgpack
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr
from pydantic import AfterValidator, Field, ValidationError

from swarm.network.links.address import join, split
from swarm.network.links.link import LinkClosed
from swarm.network.links.websocket import WebSockets
from swarm.util.rates import Rate, TokenBuckets
from swarm.util.tasks import within
from swarm.wire.fields import Address, Certificate, StrictModel

PROTOCOL = "swarm/dial-back/1"
ASK_TIMEOUT_S = 8.0  # for an answer, the dial included
DIAL_TIMEOUT_S = 4.0  # an address that drops packets says nothing at all
MAX_AT_ONCE = 16  # dials of one node
MAX_PER_MINUTE = 12  # dials to one address, all of them at once if need be
MAX_KEYS = 10_000  # addresses that are remembered
MAX_ASKED_BYTES = 1024
RESOLVE_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


def _direct(address: str) -> str:
    split(address)
    return address


_T = TypeVar("_T", bound=StrictModel)


class DialRequest(StrictModel):
    """Ask whether ``address`` leads to the sender, who shows this certificate.

    Unless ``exact``, its port may also be tried at the address that the node sees.
    """

    address: Annotated[Address, AfterValidator(_direct)]
    certificate: Certificate
    exact: bool = False


class DialResponse(StrictModel):
    """The result of a dial-back.

    ``seen``: the IP addresses that the asker comes from. ``tried``: the address that was dialled,
    if any was. ``worked``: whether the certificate was shown there.
    """

    seen: Annotated[
        tuple[Annotated[str, Field(max_length=45)], ...], Field(strict=False, max_length=8)
    ] = ()
    tried: Annotated[Address, AfterValidator(_direct)] | None = None
    worked: bool = False


async def ask(daemon: P2P, bootstrap: Sequence[str], question: DialRequest) -> list[DialResponse]:
    """Return the answers of the bootstrap nodes, without those that are late or not valid."""
    answers = await asyncio.gather(*(_ask_one(daemon, address, question) for address in bootstrap))
    return [answer for answer in answers if answer is not None]


@contextlib.asynccontextmanager
async def answering(
    daemon: P2P, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[None]:
    """Answer dial-back requests while the daemon runs and the block lasts."""
    websockets = WebSockets()
    responder = Responder(daemon, websockets, clock)
    try:
        await daemon.add_protobuf_handler(PROTOCOL, responder.answer, BytesValue)
        yield
    finally:
        responder.closed = True
        await websockets.close()


class Responder:
    """The answering side.

    Args:
        clock: seconds.
    """

    def __init__(
        self, daemon: P2P, websockets: WebSockets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.closed = False
        self._daemon = daemon
        self._websockets = websockets
        self._at_once = 0
        rate = Rate.a_minute(MAX_PER_MINUTE)
        self._dials = TokenBuckets(rate, clock, MAX_KEYS)  # by the address that is dialled
        self._names = TokenBuckets(rate, clock, MAX_KEYS)  # that are looked up for one asker

    async def answer(self, asked: BytesValue, context: object) -> BytesValue:
        """Answer a request, as hivemind's handler. Errors that it raises are sent to the asker."""
        question = _decoded(DialRequest, asked.value)
        remote: PeerID = context.remote_id  # type: ignore[attr-defined]
        seen = seen_at(
            str(address)
            for peer in await within(DIAL_TIMEOUT_S, self._daemon.list_peers())
            if peer.peer_id == remote
            for address in peer.addrs
        )
        answer = DialResponse(seen=tuple(seen)[:8])
        if seen and not self.closed and self._at_once < MAX_AT_ONCE:
            self._at_once += 1
            try:
                host = await self._allowed(question, seen)
                if host is not None and self._dials.take(host):
                    answer = await self._try(answer, host, split(question.address)[1], question)
            finally:
                self._at_once -= 1
        return BytesValue(value=msgpack.packb(answer.model_dump()))

    async def _try(
        self, answer: DialResponse, host: str, port: int, question: DialRequest
    ) -> DialResponse:
        tried = join(host, port)
        named = question.address if question.exact else tried
        try:
            link = await within(DIAL_TIMEOUT_S, self._websockets.open(tried, question.certificate))
            await link.close()
        except (LinkClosed, asyncio.TimeoutError) as error:
            log.info("dialled back %s: %s", tried, error)
            return answer.model_copy(update={"tried": named})
        return answer.model_copy(update={"tried": named, "worked": True})

    async def _allowed(self, question: DialRequest, seen: Collection[str]) -> str | None:
        """Return the IP address to dial, None if none is allowed."""
        host, port = split(question.address)
        named = [host] if _is_ip(host) else []
        if not named and self._names.take(next(iter(seen))):
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                loop = asyncio.get_running_loop()
                infos = await within(
                    RESOLVE_TIMEOUT_S, loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                )
                named = [str(info[4][0]) for info in infos]
        return choose(named, seen, question.exact, _is_ours)


def choose(
    named: Sequence[str], seen: Collection[str], exact: bool, is_ours: Callable[[str], bool]
) -> str | None:
    """Return the address to dial: one that the asker names and is seen at, else one it is seen at.

    With ``exact``, only one that it names. An asker that is seen at loopback runs on this computer,
    and may name any address of it.
    """
    here = any(ipaddress.ip_address(each).is_loopback for each in seen)
    for address in named:
        if address in seen or (here and is_ours(address)):
            return address
    return None if exact or not seen else next(iter(seen))


def seen_at(multiaddrs: Iterable[str]) -> list[str]:
    """Return the IP addresses of direct connections, each once. One over a relay shows the
    relay's."""
    found: dict[str, None] = {}
    for multiaddr in multiaddrs:
        parts = multiaddr.split("/")
        if "p2p-circuit" in parts or len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
            continue
        with contextlib.suppress(ValueError):
            found[str(ipaddress.ip_address(parts[2]))] = None
    return list(found)


async def _ask_one(daemon: P2P, address: str, question: DialRequest) -> DialResponse | None:
    peer = PeerID.from_base58(Multiaddr(address)["p2p"])
    asked = BytesValue(value=msgpack.packb(question.model_dump()))
    try:
        answer = await within(
            ASK_TIMEOUT_S, daemon.call_protobuf_handler(peer, PROTOCOL, asked, BytesValue)
        )
        return _decoded(DialResponse, answer.value)
    except Exception as error:  # whatever the other side does, it did not answer
        log.info("the bootstrap node ...%s did not dial back: %s", address[-8:], error)
        return None


def _decoded(kind: type[_T], data: bytes) -> _T:
    """Raises ValueError on anything malformed."""
    if len(data) > MAX_ASKED_BYTES:
        raise ValueError(f"{len(data)} bytes, at most {MAX_ASKED_BYTES}")
    try:
        return kind.model_validate(msgpack.unpackb(data))
    except (ValidationError, msgpack.UnpackException, TypeError) as error:
        raise ValueError(f"not a valid {kind.__name__} ({type(error).__name__})") from None


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _is_ours(address: str) -> bool:
    """Whether this computer has the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False
