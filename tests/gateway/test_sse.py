"""A stream to a reader who takes nothing ends, and its buffer is bounded."""

import asyncio

import aiohttp
from aiohttp import web

from helpers.loopback import soon
from swarm.gateway import sse

EVENT = {"text": "x" * 100_000}
MOST_EVENTS = 300  # of those that buffers of ours and of the system hold


async def test_a_reader_who_takes_nothing_is_left(monkeypatch):
    monkeypatch.setattr(sse, "WRITE_TIMEOUT_S", 0.2)
    sent, ended = 0, asyncio.get_running_loop().create_future()

    async def talk(request):
        nonlocal sent
        stream = sse.EventStream(request)
        await stream.open()
        try:
            while True:
                await stream.send(EVENT)
                sent += 1
        except sse.SlowReader as error:
            ended.set_result(str(error))
        return stream.response

    app = web.Application()
    app.router.add_get("/", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(read_bufsize=1024) as http, http.get(url) as response:
            assert response.content_type == "text/event-stream"
            assert "took nothing" in await soon(ended)
            assert sent < MOST_EVENTS
    finally:
        await runner.cleanup()
