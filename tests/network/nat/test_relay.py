"""Links through a real relay on loopback: a bootstrap node, a peer that listens nowhere, and a
client."""

from collections.abc import AsyncIterator

import pytest
import torch

from helpers.loopback import ask as ask_link
from helpers.loopback import eventually, hidden_frame, new_member, soon
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.dht.directory import Directory
from swarm.network.links.address import RelayedAddress
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter
from swarm.network.links.link import Link, LinkClosed
from swarm.network.nat.relay import Relay
from swarm.network.nat.relay_node import join_and_relay, relays_well
from swarm.wire.messages import Ping

NOBODY = Identity.generate().peer_id
PLACE_TIMEOUT_S = 15.0


@pytest.fixture
async def bootstrap() -> AsyncIterator[Directory]:
    async with await join_and_relay(
        Identity.generate(), Network("test"), host="127.0.0.1", port=0
    ) as directory:
        yield directory


async def test_links_come_in_through_a_relay(bootstrap: Directory) -> None:
    network = Network("test", bootstrap.addresses)
    served: list[Link] = []

    async def echo(link: Link) -> None:
        served.append(link)
        async for message in link:
            await link.send(message)

    me = new_member(network)
    relay = await Relay.start(network)
    client = await Directory.join(Identity.generate(), network, client_mode=True)
    dialer = Dialer(new_member(network), streams=client.streams)
    try:
        await relay.streams.serve(HandshakeLimiter(me), echo)
        (place,) = await soon(relay.wait_for_place(client.streams, PLACE_TIMEOUT_S))
        assert RelayedAddress.parse(place).relay in bootstrap.addresses
        link = await soon(dialer.connect(place, "0" * 64, me.peer_id))
        assert link.relayed
        assert link.address == place
        assert await ask_link(link, Ping(nonce=1)) == Ping(nonce=1)
        large = hidden_frame(1, torch.randn(256, 2048))
        assert await ask_link(link, large) == large
        await link.close()
        await eventually(lambda: served[0].closed)

        imposed = str(RelayedAddress(RelayedAddress.parse(place).relay, NOBODY))
        with pytest.raises(LinkClosed) as caught:
            await soon(dialer.connect(imposed, "0" * 64, NOBODY))
        assert "\n" not in str(caught.value)

        again = await soon(dialer.connect(place, "0" * 64, me.peer_id))
        await relay.stop()
        await relay.stop()
        assert not await soon(client.streams.leads(RelayedAddress.parse(place)))
        with pytest.raises(LinkClosed):
            await soon(again.receive())
        await again.close()
    finally:
        await dialer.close()
        await client.close()
        await relay.stop()


async def test_without_a_daemon_no_relay_is_dialled() -> None:
    dialer = Dialer(new_member())
    with pytest.raises(LinkClosed, match="no libp2p daemon"):
        await dialer.connect(
            str(RelayedAddress(f"/ip4/127.0.0.1/tcp/1/p2p/{NOBODY}", NOBODY)), "0" * 64, NOBODY
        )
    await dialer.close()


async def test_a_node_that_is_not_there_relays_nothing() -> None:
    assert not await soon(relays_well(Network("test", (f"/ip4/127.0.0.1/tcp/1/p2p/{NOBODY}",))))
