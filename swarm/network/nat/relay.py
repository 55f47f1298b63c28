"""A way in for a computer that cannot be dialled: a libp2p daemon that holds places at relays."""

from __future__ import annotations

import asyncio
import random
import time

from hivemind.p2p import P2P

from swarm.config import Network
from swarm.errors import ConfigError, NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.daemon import start_daemon, stop_daemon
from swarm.network.links.address import RelayedAddress
from swarm.network.links.libp2p import Streams
from swarm.network.nat.dialback import DialRequest, DialResponse, ask
from swarm.wire.fields import MAX_ADDRESS

MAX_PLACES = 2  # each takes a sixth of a record
_PAUSE_S = 0.5  # between two looks whether a relay has given a place: the daemon does not say


class Relay:
    """The running daemon. Made by `start`, ended by `stop`.

    It has an identity of its own, since libp2p takes two daemons of one identity for one. The peer
    that announces its places in a signed record vouches for it.

    Args:
        asked: the relayed addresses that it has asked for.
    """

    def __init__(self, daemon: P2P, network: Network, asked: tuple[RelayedAddress, ...]) -> None:
        self.streams = Streams(daemon)
        self._daemon = daemon
        self._network = network
        self._asked = asked

    @classmethod
    async def start(cls, network: Network) -> Relay:
        """Ask some of the bootstrap nodes for a place.

        Raises NoBootstrap if no bootstrap node answers, DirectoryDown if the daemon does not run.
        """
        identity = Identity.generate()
        asked = tuple(
            RelayedAddress(each, identity.peer_id)
            for each in random.sample(network.bootstrap, len(network.bootstrap))
        )
        asked = tuple(place for place in asked if len(str(place)) <= MAX_ADDRESS)[:MAX_PLACES]
        if not asked and network.bootstrap:
            raise ConfigError(
                "bootstrap", "the names of all nodes are too long for the address of a place there"
            )
        relays = tuple(place.relay for place in asked)
        try:
            daemon = await start_daemon(identity, network, client_mode=True, relays=relays)
        except NoBootstrap:  # a daemon tries each node once, and a busy one may miss that
            daemon = await start_daemon(identity, network, client_mode=True, relays=relays)
        return cls(daemon, network, asked)

    async def ask(self, question: DialRequest) -> list[DialResponse]:
        """Ask the bootstrap nodes whether an address leads to us."""
        return await ask(self._daemon, self._network.bootstrap, question)

    async def places(self, outside: Streams) -> tuple[str, ...]:
        """Return the addresses at which `streams` can be reached now, one a relay.

        Args:
            outside: of another daemon, from where they are tried. `streams` must serve.
        """
        there = await asyncio.gather(*(outside.leads(place) for place in self._asked))
        return tuple(str(place) for place, leads in zip(self._asked, there, strict=True) if leads)

    async def wait_for_place(self, outside: Streams, timeout_s: float) -> tuple[str, ...]:
        """Return `places` as soon as there is one, or none when time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            places = await self.places(outside)
            if places or time.monotonic() > deadline:
                return places
            await asyncio.sleep(_PAUSE_S)

    async def stop(self) -> None:
        """Safe to call twice."""
        await self.streams.close()
        await stop_daemon(self._daemon)
