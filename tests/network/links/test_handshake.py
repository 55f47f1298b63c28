"""The hello over real links, and those who attack it there."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from helpers.loopback import (
    NETWORK,
    Server,
    ask,
    dialed,
    eventually,
    listen,
    new_member,
    pong,
    soon,
)
from swarm.config import Network
from swarm.identity import Identity
from swarm.network.links import handshake, websocket
from swarm.network.links.dialer import Dialer
from swarm.network.links.handshake import HandshakeLimiter, introduce
from swarm.network.links.libp2p import StreamLink
from swarm.network.links.link import Link, LinkClosed
from swarm.network.links.websocket import PATH, WebSockets
from swarm.wire import handshake as said
from swarm.wire.codec import PROTOCOL_VERSION, encode, unpack
from swarm.wire.handshake import Hello, Introduction, LocalMember, Welcome
from swarm.wire.messages import Behalf, Ping, Pong, WireMessage

PRIVATE = Network("test", key=b"k" * 32)


@pytest.mark.parametrize("delay_ms", [0.0, 20.0])
async def test_both_sides_of_a_link_know_each_other_and_the_dialling_one_the_round_trip(
    delay_ms: float,
) -> None:
    me = new_member()
    async with Server(pong, delay_ms) as server, dialed(server, delay_ms, me) as link:
        assert link.peer_id == server.identity.peer_id
        assert 2 * delay_ms <= link.rtt_ms < float("inf")
        assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        assert server.links[0].peer_id == me.peer_id
        assert server.limiter.unfinished == 0


async def test_links_of_a_private_network_are_for_its_members() -> None:
    async with Server(pong, network=PRIVATE) as server:
        async with dialed(server, me=new_member(PRIVATE)) as link:
            assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        for network, why in (
            (NETWORK, "--network-key"),
            (Network("test", key=b"x" * 32), "network's key"),
        ):
            with pytest.raises(LinkClosed, match=why):
                async with dialed(server, me=new_member(network)):
                    pass


async def test_links_from_and_to_those_who_are_not_listed_are_refused() -> None:
    me, theirs = new_member(), Identity.generate()
    listed = Network("test", members=frozenset({me.peer_id, theirs.peer_id}))
    async with Server(pong, network=listed, identity=theirs) as server:
        async with dialed(server, me=me) as link:
            assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        with pytest.raises(LinkClosed, match=r"it refuses us: .* not on the list"):
            async with dialed(server):
                pass
        before = len(server.links)
        with pytest.raises(LinkClosed, match="not on our list"):
            async with dialed(
                server,
                me=LocalMember(me.identity, Network("test", members=frozenset({me.peer_id}))),
            ):
                pass
        assert len(server.links) == before


async def test_another_network_and_another_version_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Server(pong) as server:
        with pytest.raises(LinkClosed, match="the network 'test', not 'other'"):
            async with dialed(server, me=new_member(Network("other"))):
                pass
        monkeypatch.setattr(said.DiallingSide.__init__, "__defaults__", ((3,),))
        with pytest.raises(
            LinkClosed,
            match=f"one side speaks protocol 3, the other {PROTOCOL_VERSION}: update the older one",
        ):
            async with dialed(server):
                pass


async def test_over_a_stream_the_hello_is_bound_to_its_two_libp2p_nodes() -> None:
    me, other = new_member(), new_member()
    for channels, good in (
        ((b"libp2p:a/b", b"libp2p:a/b"), True),
        ((b"libp2p:a/m", b"libp2p:m/b"), False),
    ):
        here, there = socket.socketpair()
        one = StreamLink(*await asyncio.open_connection(sock=here), "there", binding=channels[0])
        two = StreamLink(*await asyncio.open_connection(sock=there), "here", binding=channels[1])
        async with one, two:
            serving = asyncio.create_task(HandshakeLimiter(other).admits(two))
            if good:
                await soon(introduce(one, me, other.peer_id))
                assert await soon(serving)
                assert (one.peer_id, two.peer_id) == (other.peer_id, me.peer_id)
            else:
                with pytest.raises(LinkClosed, match="does not prove"):
                    await soon(introduce(one, me, other.peer_id))
                assert not await soon(serving)
                assert (one.peer_id, two.peer_id) == ("", "")


async def test_who_says_no_hello_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 0.1)
    here, there = socket.socketpair()
    for serving in (True, False):
        here, there = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=there)
        async with StreamLink(*await asyncio.open_connection(sock=here), "mute") as link:
            if serving:
                assert not await soon(HandshakeLimiter(new_member()).admits(link))
            else:
                with pytest.raises(LinkClosed, match="no hello in"):
                    await soon(introduce(link, new_member(), new_member().peer_id))
            assert link.closed
        writer.close()


async def test_a_cancelled_hello_leaves_no_link() -> None:
    async def mute(link: Link) -> bool:
        held.append(link)
        await asyncio.Event().wait()
        return True

    held: list[Link] = []
    async with Server(listen) as server:
        server.limiter.admits = mute  # type: ignore[method-assign]
        dialer = Dialer(new_member())
        dialling = asyncio.create_task(dialer.connect(*server.where))
        await eventually(lambda: bool(held))
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(dialling)
        await eventually(lambda: held[0]._transport.is_closing())
        await dialer.close()


@contextlib.asynccontextmanager
async def bare(server: Server) -> AsyncIterator[Link]:
    """A link on which nothing has been said."""
    websockets = WebSockets()
    try:
        async with await websockets.open(server.address, server.certificate) as link:
            yield link
    finally:
        await websockets.close()


@pytest.mark.threat("replayed-hello")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_recorded_hello_opens_no_link(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(said, "new_nonce", lambda: bytes(32))
    me, sent = new_member(), list[bytes]()
    async with Server(pong) as server:
        async with bare(server) as link:
            send = link.send_bytes

            async def record(data: bytes) -> int:
                sent.append(data)
                return await send(data)

            monkeypatch.setattr(link, "send_bytes", record)
            await soon(introduce(link, me, server.identity.peer_id))
        async with bare(server) as link:
            for data in sent:
                await link.send_bytes(data)
            await soon(link.receive_bytes())  # the welcome
            await link.send(Ping(nonce=1))
            if defended:
                assert "does not prove" in (await soon(link.receive())).text
                with pytest.raises(LinkClosed):
                    await soon(link.receive())
                assert len(server.links) == 1
            else:
                assert await soon(link.receive()) == Pong(nonce=1)
                assert server.links[1].peer_id == me.peer_id


@pytest.mark.threat("borrowed-address")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_record_with_somebody_elses_address_leads_to_nobody(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mallory announces Bob's address and certificate as his own: Bob would get what was meant for
    Mallory."""
    if not defended:
        monkeypatch.setattr(said, "is_expected", lambda *_: True)
    mallory = Identity.generate().peer_id
    async with Server(pong) as bob:
        dialer = Dialer(new_member())
        if defended:
            with pytest.raises(LinkClosed, match=f"not ...{mallory[-8:]}"):
                await soon(dialer.connect(bob.address, bob.certificate, mallory))
            assert not bob.links
        else:
            async with await soon(dialer.connect(bob.address, bob.certificate, mallory)) as link:
                assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        await dialer.close()


@pytest.mark.threat("stranger-on-link")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("how", ["no key", "not on the list"])
async def test_a_stranger_gets_no_link(
    how: str, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Identity.generate()
    network = PRIVATE if how == "no key" else Network("test", members=frozenset({theirs.peer_id}))
    if not defended:
        monkeypatch.setattr(said, "has_key", lambda *_: True)
        monkeypatch.setattr(Network, "admits", lambda *_: True)
    me = new_member()
    async with Server(pong, network=network, identity=theirs) as server, bare(server) as link:
        start = Hello(
            nonce=bytes(32), versions=said.SUPPORTED_VERSIONS, network="test", peer_id=me.peer_id
        )
        await link.send_bytes(said.encode(start))
        answer = await soon(link.receive_bytes())
        if defended and how == "not on the list":
            with pytest.raises(said.HelloError, match="not on the list"):
                said.decode(answer, Welcome)
        else:
            welcome = said.decode(answer, Welcome)
            whole = said.Transcript(
                start, welcome.nonce, welcome.version, welcome.peer_id, link.binding
            )
            signature = me.identity.sign(whole.said_by(said.DIALLING))
            await link.send_bytes(said.encode(Introduction(signature=signature)))
            heard = await ask(link, Ping(nonce=1))
            assert (
                "does not have this network's key" in heard.text
                if defended
                else heard == Pong(nonce=1)
            )
        assert len(server.links) == (not defended)


class Between:
    """Stands between two members with a certificate of its own, and changes pings on their way."""

    def __init__(self, victim: Server) -> None:
        self._victim, self._identity = victim, Identity.generate()
        self.read: list[bytes] = []

    async def __aenter__(self) -> "Between":
        app = web.Application()
        app.router.add_get(PATH, self._take)
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", 0, ssl_context=self._identity.server_ssl_context()
        ).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        caller = web.WebSocketResponse(compress=False)
        await caller.prepare(request)
        async with self._http.ws_connect(
            f"wss://{self._victim.address}{PATH}", ssl=False
        ) as called:

            async def back() -> None:
                async for message in called:
                    await caller.send_bytes(message.data)

            task = asyncio.create_task(back())
            async for message in caller:
                self.read.append(message.data)
                await called.send_bytes(
                    message.data.replace(encode(Ping(nonce=1)), encode(Ping(nonce=2)))
                )
            task.cancel()
        return caller


@pytest.mark.threat("man-in-the-middle")
@pytest.mark.parametrize("defended", [True, False])
async def test_nobody_stands_between_two_members(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(websocket, "_pinned", lambda _: False)
    dialer = Dialer(new_member())
    async with Server(pong) as server, Between(server) as between:
        dialling = dialer.connect(between.address, *server.where[1:])
        if defended:
            with pytest.raises(LinkClosed, match="another certificate"):
                await soon(dialling)
            assert not between.read
        else:
            async with await soon(dialling) as link:
                assert await ask(link, Ping(nonce=1)) == Pong(nonce=2)
            assert encode(Ping(nonce=1)) in between.read
        await dialer.close()


def test_a_limiter_bounds_what_has_begun_by_address_and_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "MAX_UNFINISHED", 3)
    monkeypatch.setattr(handshake, "MAX_UNFINISHED_AN_ADDRESS", 2)
    limiter = HandshakeLimiter(new_member())
    tickets = [limiter.enter("a"), limiter.enter("a")]
    assert limiter.enter("a") is None
    assert limiter.enter("b") is not None
    assert limiter.enter("c") is None
    for ticket in tickets:
        assert ticket is not None
        ticket.end()
        ticket.end()
    assert limiter.unfinished == 1
    assert limiter.enter("a") is not None


async def _version_with(server: Server, clients: int) -> int:
    """The version of a gateway's link, over which it was answered."""
    dialer = Dialer(new_member(), speaks_for=clients)
    try:
        async with await dialer.connect(*server.where) as link:
            assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
            return link.version
    finally:
        await dialer.close()


@pytest.mark.parametrize(
    ("versions", "told"), [((4,), []), ((4, 5), [Behalf(clients=7)]), ((5,), [Behalf(clients=7)])]
)
async def test_a_gateway_says_for_how_many_it_asks_to_those_who_know_of_that(
    versions, told, monkeypatch
) -> None:
    """A peer of the version before is spoken with as ever."""
    heard: list[WireMessage] = []

    async def serve(link: Link) -> None:
        async for message in link:
            heard.append(message)
            if isinstance(message, Ping):
                await link.send(Pong(nonce=message.nonce))

    monkeypatch.setattr(
        "swarm.network.links.handshake.ServingSide",
        functools.partial(said.ServingSide, versions=versions),
    )
    async with Server(serve) as server:
        assert await _version_with(server, 7) == max(versions)
        assert heard == [*told, Ping(nonce=1)]
        heard.clear()
        assert await _version_with(server, 1) == max(versions)
        assert heard == [Ping(nonce=1)]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_client_of_the_version_before_is_answered_in_its_own(version, monkeypatch) -> None:
    monkeypatch.setattr(
        "swarm.network.links.handshake.DiallingSide",
        functools.partial(said.DiallingSide, versions=(version,)),
    )
    async with Server(pong) as server, dialed(server) as link:
        await link.send(Ping(nonce=1))
        assert unpack(await soon(link.receive_bytes()))[0] == version
