"""Links over streams: the bytes on real sockets of the kind that libp2p's daemon hands over."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

import swarm.network.links.link as links
from helpers.loopback import eventually, session_id, soon
from swarm.network.links import libp2p
from swarm.network.links.libp2p import StreamLink
from swarm.network.links.link import Link, LinkClosed
from swarm.util.tasks import end
from swarm.wire.codec import MAX_MESSAGE_BYTES, WireError, encode
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Ping, Pong

BIG = Fault(code=FaultCode.INTERNAL, text="x" * 300, session=session_id())


@contextlib.asynccontextmanager
async def linked(delay_ms: float = 0.0) -> AsyncIterator[tuple[StreamLink, StreamLink]]:
    here, there = socket.socketpair()
    one = StreamLink(*await asyncio.open_connection(sock=here), "there", delay_ms)
    other = StreamLink(*await asyncio.open_connection(sock=there), "here", delay_ms)
    try:
        yield one, other
    finally:
        await asyncio.gather(one.close(), other.close())


@contextlib.asynccontextmanager
async def raw() -> AsyncIterator[tuple[StreamLink, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A link, and a stranger at its other end."""
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=there)
    async with StreamLink(*await asyncio.open_connection(sock=here), "stranger") as link:
        yield link, reader, writer
    writer.close()


@pytest.mark.parametrize("delay_ms", [0.0, 5.0])
async def test_messages_travel_both_ways_in_order_and_are_counted(delay_ms: float) -> None:
    async with linked(delay_ms) as (one, other):
        for nonce in range(20):
            assert await one.send(Ping(nonce=nonce)) == len(encode(Ping(nonce=nonce)))
            await other.send(Pong(nonce=nonce))
        assert [await soon(other.receive()) for _ in range(20)] == [
            Ping(nonce=n) for n in range(20)
        ]
        assert [await soon(one.receive()) for _ in range(20)] == [Pong(nonce=n) for n in range(20)]
        assert one.bytes_sent == other.bytes_received > 0
        assert one.relayed


async def test_a_message_may_come_in_pieces_and_a_reader_may_give_up_in_between() -> None:
    async with raw() as (link, _, writer):
        data = encode(BIG)
        whole = struct.pack(">I", len(data)) + data
        for piece in (whole[:2], whole[2:50], whole[50:-1]):
            writer.write(piece)
            reading = asyncio.create_task(link.receive())
            await asyncio.wait({reading}, timeout=0.02)
            reading.cancel()
            await asyncio.wait({reading})
        writer.write(whole[-1:] + whole)
        assert [await soon(link.receive()), await soon(link.receive())] == [BIG, BIG]


@pytest.mark.parametrize(
    "garbage", [struct.pack(">I", MAX_MESSAGE_BYTES + 1), struct.pack(">I", 1) + b"\xc1"]
)
async def test_what_is_no_message_is_the_senders_fault(garbage: bytes) -> None:
    async with raw() as (link, _, writer):
        writer.write(garbage)
        with pytest.raises(WireError):
            await soon(link.receive())


async def test_signs_of_life_are_no_messages() -> None:
    async with raw() as (link, _, writer):
        writer.write(bytes(4) * 100)
        data = encode(Ping(nonce=1))
        writer.write(struct.pack(">I", len(data)) + data)
        assert await soon(link.receive()) == Ping(nonce=1)


async def test_who_is_silent_is_given_up_while_somebody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libp2p, "HEARTBEAT_S", 0.05)
    async with raw() as (link, _, _), linked() as (one, other):
        with pytest.raises(LinkClosed, match="silent"):
            await soon(link.receive())
        reading = [asyncio.create_task(each.receive()) for each in (one, other)]
        await asyncio.wait(reading, timeout=0.5)
        assert not any(task.done() for task in reading), "both give signs of life"
        for task in reading:
            task.cancel()


async def test_a_link_that_was_closed_stays_closed_at_both_ends() -> None:
    async with linked() as (one, other):
        await one.send(Ping(nonce=1))
        await one.close()
        await one.close()
        assert await soon(other.receive()) == Ping(nonce=1)
        for _ in range(3):
            for link in (one, other):
                with pytest.raises(LinkClosed):
                    await soon(link.receive())
        assert one.closed
        assert other.closed
        with pytest.raises(LinkClosed):
            await one.send(Ping(nonce=2))


async def test_a_waiting_reader_is_woken_by_close_and_by_the_other_sides_death() -> None:
    async with linked() as (one, other):
        reading = [asyncio.create_task(each.receive()) for each in (one, other)]
        await asyncio.sleep(0)
        other._transport.abort()
        for task in reading:
            with pytest.raises(LinkClosed):
                await soon(task)


async def flood(link: Link) -> None:
    while True:
        await link.send(BIG)


async def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SEND_TIMEOUT_S", 0.1)
    async with raw() as (link, _, _):
        senders = [asyncio.create_task(flood(link)) for _ in range(3)]
        for sender in senders:
            with pytest.raises(LinkClosed):
                await soon(sender)
        with pytest.raises(LinkClosed):
            await soon(link.receive())


async def test_what_a_slow_reader_has_not_taken_waits_with_its_sender() -> None:
    count, got = 10_000, 0

    async def send_all(link: Link) -> None:
        for _ in range(count):
            await link.send(BIG)

    async with linked() as (one, other):
        sending = asyncio.create_task(send_all(one))
        await asyncio.wait({sending}, timeout=0.2)
        assert not sending.done()
        assert one.bytes_sent < 2 << 20
        while got < count:
            await soon(other.receive())
            got += 1
        await soon(sending)


async def test_close_does_not_wait_for_who_does_not_read() -> None:
    async with raw() as (link, _, _):
        sending = asyncio.create_task(flood(link))
        await asyncio.wait({sending}, timeout=0.1)
        await soon(link.close())
        with pytest.raises(LinkClosed):
            await soon(sending)


async def test_a_busy_link_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "WARM_PAUSE_S", 0.01)
    monkeypatch.setattr(links, "WARM_FOR_S", 0.3)
    async with raw() as (link, reader, _):
        await link.send(Ping(nonce=1))
        data = encode(Ping(nonce=1))
        assert await soon(reader.readexactly(4 + len(data))) == struct.pack(">I", len(data)) + data
        assert await soon(reader.readexactly(12)) == bytes(12)
        assert link._warmer is not None
        await eventually(link._warmer.done)


@pytest.mark.threat("oversized-message")
@pytest.mark.parametrize("defended", [True, False])
async def test_what_is_declared_too_long_is_gathered_only_without_a_limit(defended: bool) -> None:
    """One link could fill the memory with a message that never ends."""

    async def attack() -> int:
        async with raw() as (link, _, writer):
            reading = asyncio.create_task(link.receive_bytes(*(() if defended else (1 << 31,))))
            writer.write(struct.pack(">I", MAX_MESSAGE_BYTES + 1) + bytes(1 << 20))
            await eventually(lambda: reading.done() or len(link._got) > 1 << 20)
            gathered = len(link._got)
            await end(reading)
            return gathered

    assert (await soon(attack()) <= libp2p.READ_BYTES) is defended


@pytest.mark.threat("malformed-bytes")
@pytest.mark.parametrize("defended", [True, False])
async def test_what_is_no_message_is_heard_only_where_nothing_decodes_it(
    defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(links, "decode", lambda data: data)
    async with raw() as (link, _, writer):
        writer.write(struct.pack(">I", 3) + b"\xc1\xc1\xc1")
        reading = asyncio.create_task(link.receive())
        await soon(asyncio.wait({reading}))
        assert isinstance(reading.exception(), WireError) is defended
