"""A bootstrap node that relays for others, tested before others rely on it.

libp2p's daemon (hivemind 1.1.12) starts two relays side by side: one with the limits that it is
given, and one with go-libp2p's own, which cuts every link after 128 KiB. Which of them gets to
serve is left to chance at its start. So a link through the node is tried, and the daemon started
anew if it was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from swarm.config import Network
from swarm.errors import SwarmError
from swarm.identity import Identity
from swarm.network.dht.daemon import start_daemon, stop_daemon
from swarm.network.dht.directory import Directory
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.libp2p import Streams
from swarm.network.links.link import Link, LinkClosed
from swarm.network.nat.relay import Relay
from swarm.util.tasks import within
from swarm.wire.fields import SESSION_ID_BYTES
from swarm.wire.handshake import LocalMember
from swarm.wire.messages import Frame
from swarm.wire.tensors import WireTensor

TRIES = 16  # every second one works, or more
PLACE_TIMEOUT_S = 8.0
TRIAL_TIMEOUT_S = 5.0
TRIAL_TOKENS, TRIAL_HIDDEN = 256, 256  # 256 KiB: what is cut after 128 does not come through

log = logging.getLogger(__name__)


async def join_and_relay(
    identity: Identity, network: Network, *, host: str, port: int
) -> Directory:
    """Enter as a bootstrap node (see `Directory.join`) whose relay is of use, or after `TRIES` as
    one whose is not."""
    for attempt in range(1, TRIES + 1):
        directory = await Directory.join(
            identity, network, host=host, port=port, bootstrap_node=True
        )
        try:
            if await relays_well(Network(network.name, directory.addresses[:1])):
                return directory
        except BaseException:
            await directory.close()
            raise
        log.info("the relay was not of use at attempt %d", attempt)
        if attempt < TRIES:
            await directory.close()
    log.warning(
        "this node's relay cuts links early, so peers behind routers need another one; start it"
        " again"
    )
    return directory


async def relays_well(network: Network) -> bool:
    """Return whether a large message comes back over a link through the network's bootstrap
    node."""
    async with contextlib.AsyncExitStack() as life:
        try:
            me = LocalMember(Identity.generate(), network)
            relay = await Relay.start(network)
            life.push_async_callback(relay.stop)
            await relay.streams.serve(HandshakeLimiter(me), _echo)
            daemon = await start_daemon(Identity.generate(), network, client_mode=True)
            life.push_async_callback(stop_daemon, daemon)
            streams = Streams(daemon)
            life.push_async_callback(streams.close)
            places = await relay.wait_for_place(streams, PLACE_TIMEOUT_S)
            dialer = Dialer(me, streams=streams)
            life.push_async_callback(dialer.close)
            return bool(places) and await within(TRIAL_TIMEOUT_S, _comes_back(dialer, places[0]))
        except (SwarmError, asyncio.TimeoutError) as error:
            log.info("the relay was tried: %s", error)
            return False


async def _comes_back(dialer: Dialer, place: str) -> bool:
    data = bytes(4 * TRIAL_TOKENS * TRIAL_HIDDEN)
    hidden = WireTensor(dtype="float32", tokens=TRIAL_TOKENS, hidden=TRIAL_HIDDEN, data=data)
    large = Frame(session=bytes(SESSION_ID_BYTES), epoch=0, first=1, tail=0, hidden=hidden)
    async with await dialer.connect(place, "", dialer.me.peer_id) as link:
        await link.send(large)
        return await link.receive() == large


async def _echo(link: Link) -> None:
    with contextlib.suppress(LinkClosed):
        async for message in link:
            await link.send(message)
