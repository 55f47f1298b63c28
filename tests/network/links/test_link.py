"""Links over real TLS WebSockets on loopback, and strangers who speak no swarm at the other end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

import swarm.network.links.link as links
import swarm.network.links.websocket as websockets
from helpers.loopback import (
    PATIENCE_S,
    Server,
    ask,
    dialed,
    eventually,
    new_member,
    pong,
    session_id,
    soon,
)
from swarm.identity import Identity
from swarm.network.links import handshake
from swarm.network.links.dialer import Dialer
from swarm.network.links.link import Link, LinkClosed
from swarm.network.links.websocket import PATH
from swarm.util.tasks import LATE_S, within
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError, encode
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Ping, Pong, WireMessage

NOBODY = Identity.generate().peer_id


async def echo(link: Link) -> None:
    async for message in link:
        await link.send(message)


async def silent(link: Link) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def dialer() -> AsyncIterator[Dialer]:
    dialer = Dialer(new_member())
    yield dialer
    await dialer.close()


async def test_messages_travel_both_ways_and_are_counted() -> None:
    async with Server(echo) as server, dialed(server) as link:
        before = link.bytes_sent, link.bytes_received  # by the hello
        for nonce in (1, 2):
            assert await link.send(Ping(nonce=nonce)) == len(encode(Ping(nonce=nonce)))
        assert [await soon(link.receive()), await soon(link.receive())] == [
            Ping(nonce=1),
            Ping(nonce=2),
        ]
        both = 2 * len(encode(Ping(nonce=1)))
        assert (link.bytes_sent, link.bytes_received) == (before[0] + both, before[1] + both)


async def test_another_certificate_than_the_pinned_one_is_refused(dialer: Dialer) -> None:
    async with Server(echo) as server:
        with pytest.raises(LinkClosed, match="another certificate"):
            await dialer.connect(
                server.address, Identity.generate().certificate_fingerprint, server.identity.peer_id
            )
        assert not server.links


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.0.0.1:99999", "no address", "[::", "127.0.0.1:http"]
)
async def test_nobody_at_an_address_is_one_kind_of_error(dialer: Dialer, address: str) -> None:
    with pytest.raises(LinkClosed) as caught:
        await dialer.connect(address, "0" * 64, NOBODY)
    assert caught.value.address == address


async def test_whoever_takes_the_connection_and_says_nothing_is_given_up(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "CONNECT_TIMEOUT_S", 0.05)
    over = asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    mute = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    with pytest.raises(LinkClosed, match="no answer"):
        await soon(dialer.connect(f"127.0.0.1:{port}", "0" * 64, NOBODY))
    over.set()
    mute.close()


async def with_web_server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], dialer: Dialer
) -> None:
    """Dial a web server that is no member of the swarm, though it has the right certificate."""
    identity = Identity.generate()
    app = web.Application()
    app.router.add_get(PATH, handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.server_ssl_context()).start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        await dialer.connect(address, identity.certificate_fingerprint, identity.peer_id)
    finally:
        await runner.cleanup()


async def test_a_peer_cannot_send_us_to_another_server(dialer: Dialer) -> None:
    visited = asyncio.Event()

    async def visit(_: web.Request) -> web.Response:
        visited.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", visit)
    elsewhere = web.AppRunner(app, access_log=None)
    await elsewhere.setup()
    await web.TCPSite(elsewhere, "127.0.0.1", 0).start()

    async def redirect(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"http://127.0.0.1:{elsewhere.addresses[0][1]}/")

    with pytest.raises(LinkClosed, match="elsewhere"):
        await with_web_server(redirect, dialer)
    assert not visited.is_set()
    await elsewhere.cleanup()


async def test_a_web_server_that_is_no_peer_is_refused(dialer: Dialer) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="welcome")

    with pytest.raises(LinkClosed):
        await with_web_server(page, dialer)


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"\x93\x01\xa4nope\x80", "text", b"\0" * (MAX_MESSAGE_BYTES + 1)]
)
async def test_what_is_no_message_is_the_senders_fault(garbage: bytes | str) -> None:
    outcome: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def read(link: Link) -> None:
        try:
            await link.receive()
        except Exception as error:
            outcome.set_result(error)

    async with Server(read) as server, dialed(server) as link:
        await (
            link.send_bytes(garbage)
            if isinstance(garbage, bytes)
            else link._socket.send_str(garbage)
        )
        assert isinstance(await soon(outcome), WireError)


@pytest.mark.parametrize("delay_ms", [0.0, 30.0])
async def test_an_emulated_delay_holds_messages_back_and_keeps_their_order(delay_ms: float) -> None:
    async with Server(echo) as server, dialed(server, delay_ms) as link:
        started = time.monotonic()
        for nonce in range(20):
            await link.send(Ping(nonce=nonce))
        answers = [await soon(link.receive()) for _ in range(20)]
        assert answers == [Ping(nonce=nonce) for nonce in range(20)]
        assert time.monotonic() - started >= delay_ms / 1e3


async def test_closing_ends_both_ends_and_may_be_repeated() -> None:
    read: list[WireMessage] = []
    left = asyncio.Event()

    async def keep(link: Link) -> None:
        async for message in link:
            read.append(message)
        left.set()

    async with Server(keep) as server, dialed(server) as link:
        await link.send(Ping(nonce=1))
        await link.close()
        await link.close()
        await soon(left.wait())
        assert read == [Ping(nonce=1)]
        assert link.closed
        assert server.links[0].closed
        with pytest.raises(LinkClosed):
            await link.send(Ping(nonce=2))
        for _ in range(10):  # aiohttp loses patience with who reads a closed socket again and again
            with pytest.raises(LinkClosed):
                await link.receive()


@pytest.mark.parametrize("delay_ms", [0.0, 5.0])
async def test_a_waiting_reader_is_woken_by_close_and_by_the_other_sides_death(
    delay_ms: float,
) -> None:
    async with (
        Server(silent) as server,
        dialed(server, delay_ms) as link,
        dialed(server, delay_ms) as other,
    ):
        reading = [asyncio.create_task(each.receive()) for each in (link, other)]
        await eventually(lambda: len(server.links) == 2)
        await link.close()
        for transport in [served._transport for served in server.links]:
            transport.abort()  # as when its process is killed
        for task in reading:
            with pytest.raises(LinkClosed):
                await soon(task)


BIG = Fault(code=FaultCode.INTERNAL, text="x" * 300, session=session_id())


@pytest.mark.parametrize("delay_ms", [0.0, 1.0])
async def test_a_reader_that_takes_nothing_is_cut_off(
    delay_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SEND_TIMEOUT_S", 0.1)

    async def flood(link: Link) -> None:
        while True:
            await link.send(BIG)

    async with Server(silent) as server, dialed(server, delay_ms) as link:
        senders = [asyncio.create_task(flood(link)) for _ in range(3)]
        for sender in senders:
            with pytest.raises(LinkClosed):
                await soon(sender)
        assert link.closed
        with pytest.raises(LinkClosed):
            await soon(link.receive())


async def test_a_slow_reader_that_does_read_gets_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, count, got = asyncio.Event(), 3000, 0
    finished = asyncio.Event()

    async def late(link: Link) -> None:
        nonlocal got
        await go_on.wait()
        async for _ in link:
            got += 1
            if got == count:
                finished.set()

    async def send_all(link: Link) -> None:
        for _ in range(count):
            await link.send(BIG)

    async with Server(late) as server, dialed(server) as link:
        sending = asyncio.create_task(send_all(link))
        await asyncio.wait({sending}, timeout=0.1)
        assert link.bytes_sent < 8 << 20  # the rest waits with its sender, not in a queue
        go_on.set()
        await soon(sending)
        await soon(finished.wait())


async def test_close_ends_senders_that_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_HELD", 2)
    async with Server(silent) as server, dialed(server, 1.0) as link:
        link.delay_ms = 3600e3
        sends = (link.send(Ping(nonce=1)) for _ in range(5))
        sending = asyncio.gather(*sends, return_exceptions=True)
        await asyncio.wait({sending}, timeout=0.1)
        await link.close()
        sent = await within(links.SEND_TIMEOUT_S / 2, sending)
        assert sum(isinstance(each, LinkClosed) for each in sent) >= 2


async def test_close_does_not_wait_for_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood(link: Link) -> None:
        while True:
            await link.send(BIG)

    async with Server(silent) as server, dialed(server) as link:
        sending = asyncio.create_task(flood(link))
        await asyncio.wait({sending}, timeout=0.2)
        await soon(link.close())
        with pytest.raises(LinkClosed):
            await soon(sending)


async def test_a_link_that_is_cancelled_while_closing_is_cut_off() -> None:
    async with Server(silent) as server, dialed(server) as link:
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing}, timeout=PATIENCE_S)
        assert link._transport.is_closing()
        assert link.closed


async def test_a_hello_that_comes_while_our_loop_stands_still_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its time is up when the loop goes on, and the rest of it has not been read yet."""
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 2.0)
    async with Server(pong) as server, dialed(server) as link:
        time.sleep(2.0 + 2 * LATE_S)  # noqa: ASYNC251 (that is the point)
        assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)


async def test_more_links_than_an_http_pool_can_be_open_at_once(dialer: Dialer) -> None:
    async with Server(echo) as server:
        opened = [await dialer.connect(*server.where) for _ in range(110)]
        await opened[-1].send(Pong(nonce=7))
        assert await soon(opened[-1].receive()) == Pong(nonce=7)
        await asyncio.gather(*(link.close() for link in opened))


async def test_a_busy_link_is_never_silent_for_long_and_an_idle_one_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "WARM_PAUSE_S", 0.01)
    monkeypatch.setattr(links, "WARM_FOR_S", 0.3)
    async with Server(silent) as server, dialed(server) as link:
        await eventually(link._warmer.done)  # the hello is long ago
        pings = 0
        ping = link._socket.ping

        async def count() -> None:
            nonlocal pings
            pings += 1
            await ping()

        monkeypatch.setattr(link._socket, "ping", count)
        await asyncio.sleep(0.05)
        assert pings == 0, "nothing was ever said"
        await link.send(Ping(nonce=1))
        await eventually(lambda: pings > 3)
        assert link._warmer is not None
        await eventually(link._warmer.done)
        before = pings
        await link.send(Ping(nonce=2))
        await eventually(lambda: pings > before)


@pytest.mark.threat("oversized-message")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_message_that_says_it_is_too_long_is_not_waited_for(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its head is sent."""
    if not defended:
        monkeypatch.setattr(websockets, "MAX_MESSAGE_BYTES", 1 << 31)
    errors: list[Exception] = []

    async def note(link: Link) -> None:
        try:
            async for message in link:
                await link.send(message)
        except WireError as error:
            errors.append(error)

    async with Server(note) as server, dialed(server) as link:
        await link.send(Ping(nonce=1))
        assert await soon(link.receive()) == Ping(nonce=1)
        # binary, masked, 64-bit length
        head = b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + bytes(4)
        link._transport.write(head + bytes(1000))
        if defended:
            await eventually(lambda: bool(errors))
        else:
            await asyncio.sleep(0.1)
            assert not errors, "it waits for the rest"


@pytest.mark.threat("inflated-message")
@pytest.mark.parametrize("defended", [True, False])
async def test_nobody_agrees_to_compression(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte of zeros is a kilobyte on the wire, if the listening side agrees to it."""
    if not defended:
        response = web.WebSocketResponse
        monkeypatch.setattr(
            web, "WebSocketResponse", lambda **options: response(**{**options, "compress": True})
        )
    async with Server(silent) as server, aiohttp.ClientSession() as http:
        pinned = aiohttp.Fingerprint(bytes.fromhex(server.certificate))
        async with http.ws_connect(
            f"wss://{server.address}{PATH}", ssl=pinned, compress=15
        ) as socket:
            assert bool(socket.compress) != defended
