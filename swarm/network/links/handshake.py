"""The handshake over a link, on both of its sides.

`swarm.wire.handshake` defines its messages, and why they are enough.
"""

import asyncio
import logging
import time
from contextlib import suppress

from swarm.network.links.link import Link, LinkClosed
from swarm.util.rates import ConcurrencyLimit
from swarm.util.tasks import within
from swarm.wire.codec import WireError
from swarm.wire.faults import FaultCode
from swarm.wire.fields import MAX_TEXT
from swarm.wire.handshake import (
    MAX_HELLO_BYTES,
    DiallingSide,
    Hello,
    HelloError,
    Introduction,
    LocalMember,
    Refusal,
    ServingSide,
    Welcome,
    decode,
    encode,
)
from swarm.wire.messages import Fault

HELLO_TIMEOUT_S = 3.0
MAX_UNFINISHED = 512  # hellos of a process that have begun
MAX_UNFINISHED_AN_ADDRESS = 64
RELAYED = "relays"  # the address of all links through relays: their own addresses are hidden

log = logging.getLogger(__name__)


async def introduce(link: Link, me: LocalMember, expected: str) -> None:
    """Do the dialling side's handshake. Then the link's ``peer_id`` and ``rtt_ms`` are set.

    Raises:
        LinkClosed: if the other side is not the expected peer, or refuses us. The link is closed.
    """
    try:
        if not me.network.admits(expected):
            raise HelloError(f"the peer ...{expected[-8:]} is not on our list of members")
        await within(HELLO_TIMEOUT_S, _introduce(link, me, expected))
    except asyncio.TimeoutError:
        await link.close()
        raise LinkClosed(link.address, f"no hello in {HELLO_TIMEOUT_S:g} s") from None
    except (HelloError, WireError) as error:
        await link.close()
        raise LinkClosed(
            link.address, error.why if isinstance(error, HelloError) else str(error)
        ) from None
    except BaseException:
        await link.close()
        raise


async def _introduce(link: Link, me: LocalMember, expected: str) -> None:
    dialling = DiallingSide(me, expected, link.binding)
    asked_at = time.perf_counter()
    await link.send_bytes(encode(dialling.hello))
    answer = await link.receive_bytes(MAX_HELLO_BYTES)
    rtt_ms = (time.perf_counter() - asked_at) * 1e3
    welcome = decode(answer, Welcome)
    introduction = dialling.welcomed(welcome)
    link.version = welcome.version
    await link.send_bytes(encode(introduction))
    link.peer_id = expected
    link.rtt_ms = rtt_ms


class HandshakeTicket:
    """A place among the unfinished handshakes, until it is given back by `end`."""

    def __init__(self, limiter: "HandshakeLimiter", address: str) -> None:
        self._limiter = limiter
        self._address = address
        self.over = False

    def end(self) -> None:
        """May be called twice."""
        if not self.over:
            self.over = True
            self._limiter.left(self._address)


class HandshakeLimiter:
    """The serving side's handshakes. One per process: it bounds those that are not finished."""

    def __init__(self, me: LocalMember) -> None:
        self.me = me
        self._unfinished = ConcurrencyLimit(MAX_UNFINISHED, MAX_UNFINISHED_AN_ADDRESS)

    @property
    def unfinished(self) -> int:
        return len(self._unfinished)

    def enter(self, address: str) -> HandshakeTicket | None:
        """Count a connection from an address, whose handshake may take `HELLO_TIMEOUT_S`.

        Return None if too many others are unfinished.
        """
        if not self._unfinished.enter(address):
            log.info("too many unfinished hellos; not taking one from %s", address)
            return None
        return HandshakeTicket(self, address)

    def left(self, address: str) -> None:
        """The other half of `enter`."""
        self._unfinished.leave(address)

    async def admits(self, link: Link) -> bool:
        """Do the serving side's handshake. Return whether the link's ``peer_id`` is proved now.

        If not, the link is closed.
        """
        try:
            await within(HELLO_TIMEOUT_S, self._hear(link))
        except (HelloError, WireError, LinkClosed, asyncio.TimeoutError) as error:
            log.info("no hello with %s: %s", link.address, error or "it says nothing")
            await link.close()
            return False
        except BaseException:
            await link.close()
            raise
        return True

    async def _hear(self, link: Link) -> None:
        serving = ServingSide(self.me, link.binding)
        try:
            welcome = serving.welcome(decode(await link.receive_bytes(MAX_HELLO_BYTES), Hello))
        except HelloError as error:
            with suppress(LinkClosed):
                await link.send_bytes(encode(Refusal(text=error.why[:MAX_TEXT])))
            raise
        link.version = welcome.version
        await link.send_bytes(encode(welcome))
        introduction = decode(await link.receive_bytes(MAX_HELLO_BYTES), Introduction)
        try:
            link.peer_id = serving.introduced(introduction)
        except HelloError as error:  # the other side takes the link for open
            with suppress(LinkClosed):
                await link.send(Fault(code=FaultCode.BAD_MESSAGE, text=error.why[:MAX_TEXT]))
            raise
