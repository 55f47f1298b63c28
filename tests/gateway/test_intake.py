"""Bodies arrive whole and decompressed, or are refused: too large, too slow, or too many."""

import asyncio
import gzip
import json

import pytest

from helpers.gateway_in_process import gateway_over
from helpers.loopback import eventually, soon
from swarm.demo import TARGET
from swarm.gateway import intake
from swarm.gateway.errors import BadRequest, Crowded
from swarm.gateway.intake import (
    MAX_BODY_BYTES,
    SMALL_BODY_BYTES,
    BodyBudget,
    BodyReservation,
    Decompressor,
)

HEADERS = {"Content-Type": "application/json"}


async def test_large_bodies_get_memory_in_turn():
    budget, order = BodyBudget(100, timeout_s=20), []

    async def reserve(name, nbytes):
        await budget.reserve(nbytes)
        order.append(name)

    await reserve("a", 60)
    tasks = []
    for name, nbytes in (("b", 50), ("c", 10)):
        tasks.append(asyncio.create_task(reserve(name, nbytes)))
        await asyncio.sleep(0)
    assert order == ["a"]  # c would fit, and waits behind b
    tasks[0].cancel()
    await eventually(lambda: order == ["a", "c"])
    budget.release(60)
    budget.release(10)
    assert budget.free == 100


async def test_a_body_that_is_cancelled_as_its_turn_comes_releases_its_bytes():
    budget = BodyBudget(10, timeout_s=20)
    await budget.reserve(10)
    called = asyncio.create_task(budget.reserve(10))
    await asyncio.sleep(0)
    budget.release(10)
    called.cancel()
    await asyncio.wait({called})
    assert budget.free == 10


async def test_the_wait_for_memory_has_a_limit():
    budget = BodyBudget(10, timeout_s=0.0)
    await budget.reserve(10)
    with pytest.raises(Crowded):
        await budget.reserve(1)
    budget.release(10)
    assert budget.free == 10


async def test_small_bodies_need_no_reservation_and_large_ones_get_one():
    budget = BodyBudget(2 * SMALL_BODY_BYTES, timeout_s=20)
    reservation = BodyReservation(budget)
    await reservation.grow(SMALL_BODY_BYTES)
    assert budget.free == 2 * SMALL_BODY_BYTES
    await reservation.grow(SMALL_BODY_BYTES + 1)
    await reservation.grow(2 * SMALL_BODY_BYTES)
    assert budget.free == SMALL_BODY_BYTES - 1
    reservation.release()
    reservation.release()
    assert budget.free == 2 * SMALL_BODY_BYTES


def test_a_bomb_is_unpacked_in_pieces():
    decompressor, sizes = Decompressor.of("gzip"), []
    for piece in decompressor.decompress(gzip.compress(bytes(10 * intake.PIECE_BYTES))):
        sizes.append(len(piece))
    assert sum(sizes) == 10 * intake.PIECE_BYTES
    assert max(sizes) <= intake.PIECE_BYTES


def test_an_encoding_that_is_not_known_is_refused():
    with pytest.raises(BadRequest, match="identity, gzip, deflate") as told:
        Decompressor.of("br")
    assert told.value.status == 415


async def _raw(served, head, *chunks):
    """Return the answer to a request whose body has these chunks, and never ends."""
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
    """The maximum is being read; one more has to come back later, and a small one is answered."""
    monkeypatch.setattr(intake, "BUDGET_BYTES", 2 * SMALL_BODY_BYTES)
    monkeypatch.setattr(intake, "BUDGET_TIMEOUT_S", 0.2)
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
