"""A private swarm of real processes, and strangers who try to speak with its peer."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from helpers.loopback import Server, ask, pong, soon
from swarm.config import Network, create_network_key, load_network_key
from swarm.demo import TARGET
from swarm.identity import Identity
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import introduce
from swarm.network.links.link import LinkClosed
from swarm.network.links.websocket import WebSockets
from swarm.util.tasks import within
from swarm.wire import handshake
from swarm.wire.codec import PROTOCOL_VERSION
from swarm.wire.handshake import LocalMember, Transcript, Welcome
from swarm.wire.messages import Fault, Ping, Pong

START_S = 300.0
NAME = "test-private"

pytestmark = pytest.mark.usefixtures("warmly")


@dataclass
class Swarm:
    """A bootstrap node and one peer, and two members who dial it."""

    network: Network
    where: tuple[str, str, str]
    alice: Identity
    mallory: Identity


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    started = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "peers.cli",
            *arguments,
            "--network",
            NAME,
            "--host",
            "127.0.0.1",
            "--until-eof",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert started.stdout is not None
    try:
        yield started.stdout
    finally:
        started.terminate()
        await started.wait()


@contextlib.asynccontextmanager
async def private_swarm(folder: Path) -> AsyncIterator[Swarm]:
    names = ("bootstrap", "peer", "alice", "mallory")
    ids = {name: Identity.load_or_create(folder / f"{name}.key") for name in names}
    key, members = folder / "network.key", folder / "members.txt"
    create_network_key(key)
    members.write_text("\n".join(f"{identity.peer_id}  # {name}" for name, identity in ids.items()))
    private = ("--network-key", str(key), "--members", str(members))
    async with process(
        "bootstrap", "--port", "0", "--json", "--key", str(folder / "bootstrap.key"), *private
    ) as node:
        addresses = json.loads(await within(START_S, node.readline()))["addresses"]
        options = (
            "--layers",
            "0:1",
            "--threads",
            "1",
            "--key",
            str(folder / "peer.key"),
            "--bootstrap",
            addresses[0],
        )
        async with process("join", TARGET, *options, *private) as peer:
            while not (line := (await within(START_S, peer.readline())).decode()).startswith(
                "serving"
            ):
                assert line
            address = re.search(r" at (127\.0\.0\.1:\d+)", line)
            assert address
            network = Network(NAME, tuple(addresses), load_network_key(key))
            where = address[1], ids["peer"].certificate_fingerprint, ids["peer"].peer_id
            yield Swarm(network, where, ids["alice"], ids["mallory"])


@contextlib.asynccontextmanager
async def dialer(identity: Identity, network: Network) -> AsyncIterator[Dialer]:
    each = Dialer(LocalMember(identity, network))
    yield each
    await each.close()


async def refused(swarm: Swarm, identity: Identity, network: Network, why: str) -> None:
    async with dialer(identity, network) as each:
        with pytest.raises(LinkClosed, match=why):
            await soon(each.connect(*swarm.where))


async def test_strangers_get_no_link_to_a_private_swarm(tmp_path: Path) -> None:
    async with private_swarm(tmp_path) as swarm:
        async with (
            dialer(swarm.alice, swarm.network) as each,
            await soon(each.connect(*swarm.where)) as link,
        ):
            assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        await refused(swarm, swarm.alice, replace(swarm.network, key=None), "--network-key")
        await refused(swarm, swarm.alice, replace(swarm.network, key=b"x" * 32), "network's key")
        await refused(
            swarm, Identity.generate(), replace(swarm.network, members=None), "not on the list"
        )
        await refused(swarm, swarm.alice, replace(swarm.network, name="other"), "not 'other'")
        await an_older_version(swarm)
        await a_replay(swarm)
        await one_that_is_passed_on(swarm)


async def an_older_version(swarm: Swarm) -> None:
    websockets = WebSockets()
    async with await websockets.open(*swarm.where[:2]) as link:
        old = handshake.DiallingSide(
            LocalMember(swarm.alice, swarm.network), swarm.where[2], link.binding, (3,)
        )
        await link.send_bytes(handshake.encode(old.hello))
        with pytest.raises(
            handshake.HelloError,
            match=f"protocol 3, the other {PROTOCOL_VERSION}: update the older one",
        ):
            handshake.decode(await soon(link.receive_bytes()), Welcome)
    await websockets.close()


async def a_replay(swarm: Swarm) -> None:
    """Send all of Alice's messages again over a new link."""
    websockets, sent = WebSockets(), list[bytes]()
    async with await websockets.open(*swarm.where[:2]) as link:
        send = link.send_bytes

        async def record(data: bytes) -> int:
            sent.append(data)
            return await send(data)

        link.send_bytes = record  # type: ignore[method-assign]
        await soon(introduce(link, LocalMember(swarm.alice, swarm.network), swarm.where[2]))
        assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
    async with await websockets.open(*swarm.where[:2]) as link:
        for data in sent:
            await link.send_bytes(data)
        handshake.decode(await soon(link.receive_bytes()), Welcome)
        fault = await soon(link.receive())
        assert isinstance(fault, Fault)
        assert "does not prove" in fault.text
        with pytest.raises(LinkClosed):
            await soon(link.receive())
    await websockets.close()


async def one_that_is_passed_on(swarm: Swarm) -> None:
    """Let Mallory, a member whom Alice dials, pass on her messages to the peer as his own."""
    mallory, websockets = LocalMember(swarm.mallory, swarm.network), WebSockets()
    async with (
        Server(pong, network=swarm.network) as his,
        await websockets.open(his.address, his.certificate) as to_mallory,
        await websockets.open(*swarm.where[:2]) as to_peer,
    ):
        alice = handshake.DiallingSide(
            LocalMember(swarm.alice, swarm.network), mallory.peer_id, to_mallory.binding
        )
        await to_peer.send_bytes(handshake.encode(alice.hello))
        welcome = handshake.decode(await soon(to_peer.receive_bytes()), Welcome)
        said = Transcript(
            alice.hello, welcome.nonce, welcome.version, mallory.peer_id, to_mallory.binding
        )
        signed = said.said_by(handshake.SERVING)
        change = {
            "peer_id": mallory.peer_id,
            "signature": swarm.mallory.sign(signed),
            "proof": handshake.proof_of(swarm.network.key, signed),
        }
        await to_peer.send_bytes(
            handshake.encode(alice.welcomed(welcome.model_copy(update=change)))
        )
        fault = await soon(to_peer.receive())
        assert isinstance(fault, Fault)
        assert "does not prove" in fault.text
    await websockets.close()
