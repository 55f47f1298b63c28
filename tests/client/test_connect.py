"""A client's way in: through bootstrap nodes, or through nodes that let it in before; and out."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from helpers.loopback import soon
from swarm.client.connect import SwarmConnection, connect
from swarm.config import Network
from swarm.errors import NoBootstrap
from swarm.identity import Identity
from swarm.keylock import KeyInUse, held
from swarm.network.dht.directory import Directory
from swarm.wire.handshake import LocalMember

DEAD = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWRHdv39CS4pr2WAuFzmzJzfNbJyequC8N2mtYNiEyk3xd"


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with await Directory.join(
        Identity.generate(), Network("test"), bootstrap_node=True
    ) as first:
        yield Network("test", first.addresses)


async def enter(network: Network, **options: object) -> list[object]:
    async with connect(LocalMember(Identity.generate(), network), **options) as swarm:  # type: ignore[arg-type]
        assert isinstance(swarm, SwarmConnection)
        return list(await swarm.directory.models())


async def test_nodes_that_let_us_in_before_do_so_when_no_bootstrap_node_answers(
    network: Network,
) -> None:
    cut_off = replace(network, bootstrap=(DEAD,))
    with pytest.raises(NoBootstrap):
        await soon(enter(cut_off))
    assert await soon(enter(cut_off, known_nodes=network.bootstrap)) == []


async def test_a_key_that_is_used_alone_does_not_enter_and_is_free_afterwards(
    network: Network, tmp_path
) -> None:
    key = Identity.load_or_create(tmp_path / "key")
    members = replace(network, members=frozenset({key.peer_id}))
    with held(key.file, alone=True), pytest.raises(KeyInUse):
        async with connect(LocalMember(key, members)):
            pass
    with held(key.file, alone=True):
        pass
