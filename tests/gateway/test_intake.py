"""Bodies come in whole and unpacked, or are refused: too large, too slow, or too many at a time."""

import asyncio
import gzip
import json

import pytest

from helpers.gateway_in_process import gateway_over
from helpers.loopback import eventually, soon
from swarm.demo import TARGET
from swarm.gateway import intake
from swarm.gateway.errors import BadRequest, Crowded
from swarm.gateway.intake import MAX_BODY_BYTES, SMALL_BODY_BYTES, Held, Packing, Room

HEADERS = {"Content-Type": "application/json"}


async def test_room_is_given_in_turn_and_given_back():
    room, order = Room(100, timeout_s=20), []

    async def take(name, nbytes):
        await room.take(nbytes)
        order.append(name)

    await take("a", 60)
    tasks = []
    for name, nbytes in (("b", 50), ("c", 10)):
        tasks.append(asyncio.create_task(take(name, nbytes)))
        await asyncio.sleep(0)
    assert order == ["a"]  # c has room, and waits behind b
    tasks[0].cancel()
    await eventually(lambda: order == ["a", "c"])
    room.give_back(60)
    room.give_back(10)
    assert room.free == 100


async def test_who_is_called_and_leaves_at_the_same_time_gives_the_room_back():
    room = Room(10, timeout_s=20)
    await room.take(10)
    called = asyncio.create_task(room.take(10))
    await asyncio.sleep(0)
    room.give_back(10)
    called.cancel()
    await asyncio.wait({called})
    assert room.free == 10


async def test_room_that_does_not_come_is_not_waited_for():
    room = Room(10, timeout_s=0.0)
    await room.take(10)
    with pytest.raises(Crowded):
        await room.take(1)
    room.give_back(10)
    assert room.free == 10


async def test_small_bodies_take_no_room_and_large_ones_once():
    room = Room(2 * SMALL_BODY_BYTES, timeout_s=20)
    held = Held(room)
    await held.grow(SMALL_BODY_BYTES)
    assert room.free == 2 * SMALL_BODY_BYTES
    await held.grow(SMALL_BODY_BYTES + 1)
    await held.grow(2 * SMALL_BODY_BYTES)
    assert room.free == SMALL_BODY_BYTES - 1
    held.give_back()
    held.give_back()
    assert room.free == 2 * SMALL_BODY_BYTES


def test_a_bomb_is_unpacked_in_pieces():
    packing, sizes = Packing.named("gzip"), []
    for piece in packing.unpack(gzip.compress(bytes(10 * intake.PIECE_BYTES))):
        sizes.append(len(piece))
    assert sum(sizes) == 10 * intake.PIECE_BYTES
    assert max(sizes) <= intake.PIECE_BYTES


def test_an_encoding_that_is_not_known_is_refused():
    with pytest.raises(BadRequest, match="identity, gzip, deflate") as told:
        Packing.named("br")
    assert told.value.status == 415


async def _raw(served, head, *chunks):
    """The answer to a request whose body comes in these chunks, and never ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        head,
        "",
        "",
    ]
    try:
        writer.write("\r\n".join(lines).encode())
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        return (await soon(reader.readuntil(b"\r\n\r\n"))).split()[1]
    finally:
        writer.close()


async def test_a_body_that_does_not_come_is_left(served, monkeypatch):
    monkeypatch.setattr(intake, "BODY_TIMEOUT_S", 0.2)
    assert await _raw(served, "Content-Length: 100", b"{") == b"408"


async def test_a_body_without_a_length_ends_where_it_is_too_large(served):
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    chunks = [chunk] * (MAX_BODY_BYTES // (1 << 20) + 1)
    assert await _raw(served, "Transfer-Encoding: chunked", *chunks) == b"413"


async def test_large_bodies_wait_for_each_other_and_small_ones_for_none(demo, monkeypatch):
    """As many as have room are being read; one more is told to come back, and a small one is
    answered."""
    monkeypatch.setattr(intake, "ROOM_BYTES", 2 * SMALL_BODY_BYTES)
    monkeypatch.setattr(intake, "ROOM_TIMEOUT_S", 0.2)
    async with gateway_over(demo) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        size = 2 * SMALL_BODY_BYTES
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode() + b" " * (size - 9))
        await writer.drain()
        large = json.dumps({"model": TARGET, "prompt": "x" * (size - 100)}).encode()

        async def told():
            async with served.http.post(
                f"{served.url}/v1/completions", data=large, headers=HEADERS
            ) as response:
                return response.status, response.headers.get("Retry-After")

        async def crowded():
            while (await told())[0] != 429:
                pass

        await soon(crowded())
        assert int((await told())[1]) >= 1
        small = {"model": TARGET, "prompt": "Mia", "max_tokens": 1}
        assert (await served.post("/v1/completions", small))[0] == 200
        writer.close()

        async def free():
            while (await told())[0] != 400:
                pass

        await soon(free())
