"""Two peers with one key, on two computers: neither lock nor bytes are shared, only the
directory."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from helpers.dht import Lab, laboratory
from helpers.loopback import LAYERS, Server, pong, soon
from peers.access.twin import TwinSearch
from swarm.identity import Identity
from swarm.keylock import KeyInUse
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import PeerRecord
from swarm.network.links.dialer import Dialer
from swarm.wire.handshake import LocalMember


class Computer:
    """A peer that listens, and looks for another one with its key."""

    def __init__(self, identity: Identity, lab: Lab) -> None:
        self.dialer = Dialer(LocalMember(identity, lab.network))
        self.twins = TwinSearch(self.dialer)
        self.server = Server(self.twins.serving(pong), identity=identity)

    @property
    def record(self) -> PeerRecord:
        return self.server.record()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as lab:
        yield lab


@pytest.fixture
async def identity() -> Identity:
    return Identity.generate()


@pytest.fixture
async def computers(lab: Lab, identity: Identity) -> AsyncIterator[list[Computer]]:
    """Two, in the order of their addresses."""
    both = [Computer(identity, lab) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for each in both:
            await stack.enter_async_context(each.server)
            stack.push_async_callback(each.dialer.close)
        yield sorted(both, key=lambda each: each.record.addresses)


@pytest.fixture
async def directory(lab: Lab, identity: Identity) -> Directory:
    return await lab.join(identity)


async def test_the_second_one_is_refused(computers: list[Computer], directory: Directory) -> None:
    one, two = computers
    await soon(one.twins.check(directory, one.record))
    await directory.publish(one.record)
    with pytest.raises(
        KeyInUse, match=f"{one.record.peer_id}: a peer at {one.server.address} uses this key"
    ):
        await soon(two.twins.check(directory, two.record))


async def test_it_is_found_in_whichever_layers_it_serves(
    computers: list[Computer], directory: Directory
) -> None:
    one, two = computers
    await directory.publish(one.server.record(first_layer=LAYERS - 1))
    with pytest.raises(KeyInUse):
        await soon(two.twins.check(directory, two.server.record(last_layer=1)))


async def test_it_is_found_whatever_model_it_serves(
    computers: list[Computer], directory: Directory
) -> None:
    one, two = computers
    other = one.server.record(model="another", fingerprint="f" * 32, last_layer=1, model_layers=1)
    await directory.publish(other)
    with pytest.raises(KeyInUse):
        await soon(two.twins.check(directory, two.record))


async def test_of_two_that_started_together_one_ends(
    computers: list[Computer], directory: Directory
) -> None:
    one, two = computers
    await directory.publish(two.record)
    await soon(one.twins.look(directory, one.record))
    await directory.publish(one.record)
    with pytest.raises(KeyInUse):
        await soon(two.twins.look(directory, two.record))


async def test_what_a_killed_peer_left_in_the_directory_keeps_nobody_out(
    computers: list[Computer], directory: Directory
) -> None:
    before, now = computers
    await directory.publish(before.record)
    await before.server.stop()
    await soon(now.twins.check(directory, now.record))
    await directory.withdraw()
    await soon(now.twins.check(directory, now.record))


async def test_an_address_of_before_that_leads_to_ourselves_is_no_twin(
    computers: list[Computer], directory: Directory
) -> None:
    me, _ = computers
    await directory.publish(me.record)
    elsewhere = replace_addresses(me.record, "203.0.113.5:31330")
    await soon(me.twins.check(directory, elsewhere))


def replace_addresses(record: PeerRecord, *addresses: str) -> PeerRecord:
    return record.model_copy(update={"addresses": addresses})
