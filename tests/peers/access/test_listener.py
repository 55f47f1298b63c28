"""The port of a peer, and those who connect to it and do not go on."""

import asyncio
import contextlib
import secrets
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch

from helpers.loopback import Server, ask, dialed, eventually, hidden_frame, pong, soon
from peers.access import listener
from peers.access.listener import listening
from swarm.errors import CannotListen
from swarm.network.links import handshake
from swarm.network.links.websocket import PATH
from swarm.wire.messages import Ping, Pong

UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
STUCK = {"nothing": b"", "half a request": UPGRADE[:40], "an upgrade": UPGRADE}

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def callers(
    server: Server, count: int, said: bytes, tls: bool = True
) -> AsyncIterator[list[Stream]]:
    """Strangers who connect, say this, and wait."""
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    host, _, port = server.address.partition(":")
    streams = []
    for _ in range(count):
        stream = await asyncio.open_connection(host, int(port), ssl=anything if tls else None)
        stream[1].write(said)
        streams.append(stream)
    yield streams
    for _, writer in streams:
        writer.transport.abort()


async def hung_up(stream: Stream) -> None:
    """Returns when the other side has closed."""
    with contextlib.suppress(OSError):
        while await soon(stream[0].read(1 << 16)):
            pass


@pytest.mark.threat("stuck-hello")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("said", STUCK)
async def test_who_never_finishes_the_hello_is_cut_off(
    said: str, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 0.3 if defended else 3600.0)
    async with Server(pong) as server, callers(server, 8, STUCK[said]) as streams:
        if defended:
            await asyncio.gather(*map(hung_up, streams))
            await eventually(lambda: server.limiter.unfinished == 0)
        else:
            await eventually(lambda: server.limiter.unfinished == 8)
            done, waiting = await asyncio.wait(
                [asyncio.create_task(hung_up(each)) for each in streams], timeout=0.5
            )
            assert not done
            for task in waiting:
                task.cancel()


@pytest.mark.threat("stuck-hello")
@pytest.mark.parametrize("defended", [True, False])
async def test_unfinished_hellos_are_bounded(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(handshake, "MAX_UNFINISHED_AN_ADDRESS", 4 if defended else 1 << 30)
    async with Server(pong) as server, callers(server, 4, UPGRADE):
        await eventually(lambda: server.limiter.unfinished == 4)
        async with callers(server, 8, UPGRADE) as more:
            if defended:
                await asyncio.gather(*map(hung_up, more))
                assert server.limiter.unfinished == 4
            else:
                await eventually(lambda: server.limiter.unfinished == 12)


async def test_who_begins_no_tls_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 0.1)
    async with Server(pong) as server, callers(server, 4, b"", tls=False) as streams:
        await asyncio.gather(*map(hung_up, streams))


async def test_who_has_finished_is_not_counted_and_may_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "MAX_UNFINISHED_AN_ADDRESS", 1)
    async with Server(pong) as server, dialed(server) as one, dialed(server) as other:
        monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 0.0)
        for link in (one, other):
            assert await ask(link, Ping(nonce=1)) == Pong(nonce=1)
        assert server.limiter.unfinished == 0


class _Watched(listener._Caller):
    __slots__ = ()
    seen: list[Any] = []  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen.append(self)


@pytest.mark.threat("stuck-hello")
@pytest.mark.parametrize("defended", [True, False])
async def test_little_is_read_before_the_hello(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_Caller", _Watched)
    _Watched.seen.clear()
    if not defended:
        monkeypatch.setattr(listener, "MAX_AHEAD", 1 << 30)
    huge = 24 << 20
    frame = b"\x82\xff" + struct.pack(">Q", huge) + secrets.token_bytes(4) + bytes(huge)
    async with Server(pong) as server, callers(server, 1, UPGRADE + frame):
        await eventually(lambda: bool(_Watched.seen))
        (caller,) = _Watched.seen
        if defended:
            await eventually(lambda: caller._held)
            await asyncio.sleep(0.2)
            assert caller._ahead < 1 << 20
        else:
            await eventually(lambda: caller._ahead > huge // 2)


async def test_what_is_said_right_behind_the_hello_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of it than is read before."""
    monkeypatch.setattr(listener, "MAX_AHEAD", 2000)
    large = hidden_frame(1, torch.randn(256, 2048))
    got = []

    async def keep(link: Any) -> None:
        async for message in link:
            got.append(message)

    async with Server(keep) as server, dialed(server) as link:
        for _ in range(4):
            await link.send(large)
        await eventually(lambda: len(got) == 4)
        assert got == [large] * 4


async def test_a_port_that_is_taken_is_said() -> None:
    async with Server(pong) as server:
        port = int(server.address.partition(":")[2])
        with pytest.raises(CannotListen, match="give another --port"):
            async with listening(server.limiter, "127.0.0.1", port, pong):
                pass
