"""Looking at a large swarm again and again: each peer is dialled once in a while."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from helpers.loopback import Server, new_member, pong, soon
from swarm.client import pinger
from swarm.client.pinger import ANSWERED_S, SILENT_S, Pinger
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.network.pool import Connections

LARGE, FEW = 8, 3


class Swarm:
    def __init__(self, servers: list[Server], connections: Connections, dialer: Dialer) -> None:
        self.servers = servers
        self.connections = connections
        self.now_s = 0.0
        self.pinger = Pinger(dialer, connections, lambda: self.now_s)

    @property
    def records(self) -> list[PeerRecord]:
        return [server.record() for server in self.servers]

    @property
    def dialled(self) -> int:
        return sum(len(server.links) for server in self.servers)

    async def look(self) -> int:
        """Return how many peers answer."""
        return len(await soon(self.pinger.ask(self.records)))


@pytest.fixture
async def swarm(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Swarm]:
    monkeypatch.setattr(pinger, "MAX_CANDIDATES", FEW)
    dialer = Dialer(new_member())
    connections = Connections(dialer)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(dialer.close)
        stack.push_async_callback(connections.close)
        servers = [await stack.enter_async_context(Server(pong)) for _ in range(LARGE)]
        swarm = Swarm(servers, connections, dialer)
        stack.push_async_callback(swarm.pinger.close)
        yield swarm


async def test_a_peer_that_answered_is_not_dialled_at_every_look(swarm: Swarm) -> None:
    for _ in range(3):
        assert await swarm.look() == LARGE
        await swarm.connections.keep(())  # as a generation does
    assert swarm.dialled == LARGE
    swarm.now_s += ANSWERED_S
    assert await swarm.look() == LARGE
    assert swarm.dialled == 2 * LARGE


async def test_no_connection_is_left_open_and_those_of_the_client_are_used(swarm: Swarm) -> None:
    (kept,) = (await swarm.connections.reach(swarm.records[:1])).values()
    assert await swarm.look() == LARGE
    assert swarm.dialled == LARGE  # the kept one once
    assert not kept.closed
    assert [link for server in swarm.servers[1:] for link in server.links if not link.closed] == []


async def test_one_that_was_silent_is_asked_again_sooner_and_one_that_moved_at_once(
    swarm: Swarm,
) -> None:
    gone = swarm.servers[0]
    await gone.stop()
    assert await swarm.look() == LARGE - 1
    async with Server(pong, identity=gone.identity) as back:
        there = back.record(addresses=gone.record().addresses)  # the address of before
        assert len(await swarm.pinger.ask([there, *swarm.records[1:]])) == LARGE - 1
        assert len(await swarm.pinger.ask([back.record(), *swarm.records[1:]])) == LARGE
    swarm.now_s += SILENT_S
    assert await swarm.look() == LARGE - 1


async def test_in_a_small_swarm_all_are_asked_now(swarm: Swarm) -> None:
    del swarm.servers[FEW:]
    assert await swarm.look() == FEW
    await swarm.servers[0].__aexit__()
    assert await swarm.look() == FEW - 1
