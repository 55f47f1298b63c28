"""A peer that starts together with its bootstrap node."""

import asyncio
from collections.abc import Callable

import pytest

from helpers.loopback import soon
from helpers.start_together import free_ports, start_together
from peers.access.entering import insist
from peers.events import PeerEvent
from swarm.config import Network
from swarm.errors import ClockOff, NoBootstrap
from swarm.identity import Identity
from swarm.network.dht.directory import Directory


def failing(*errors: Exception) -> Callable[[], "asyncio.Future[str]"]:
    """Something that fails so often, and then works."""
    left = list(errors)

    async def enter() -> str:
        if left:
            raise left.pop(0)
        return "in"

    return lambda: asyncio.ensure_future(enter())


async def test_what_is_waited_for_is_said_once() -> None:
    said: list[PeerEvent] = []
    silent, off = NoBootstrap(("/dns4/a/tcp/1/p2p/b",)), ClockOff(3600.0, 1)
    assert await insist(failing(silent, off, silent), said.append, pause_s=0.0) == "in"
    (news,) = said
    assert news.event == "waiting"
    assert str(silent) in news.sentence


async def test_patience_ends_and_nothing_configured_needs_none() -> None:
    said: list[PeerEvent] = []
    with pytest.raises(NoBootstrap):
        await insist(failing(NoBootstrap(("/dns4/a/tcp/1/p2p/b",))), said.append, patience_s=-1.0)
    with pytest.raises(NoBootstrap, match="No bootstrap node is configured"):
        await insist(failing(NoBootstrap()), said.append)
    assert said == []


async def test_a_bootstrap_node_that_comes_later_is_found() -> None:
    identity, (port,) = Identity.generate(), free_ports(1)
    network = Network("test", (f"/ip4/127.0.0.1/tcp/{port}/p2p/{identity.peer_id}",))
    waiting = asyncio.Event()
    joining = asyncio.create_task(
        insist(
            lambda: Directory.join(Identity.generate(), network),
            lambda _: waiting.set(),
            pause_s=0.1,
        )
    )
    await soon(waiting.wait())
    async with (
        await Directory.join(identity, network, port=port, bootstrap_node=True) as node,
        await soon(joining) as directory,
    ):
        assert (node.neighbours, directory.neighbours) == (1, 1)


async def test_bootstrap_nodes_and_peers_that_start_in_the_same_moment_are_one_swarm() -> None:
    assert await start_together(peers=2, bootstraps=2) == [2, 2, 2, 2]
