"""What is no request of the application's is answered all the same, and tells nothing of the
software."""

import asyncio

import pytest
from aiohttp import web

from helpers.loopback import soon
from swarm.errors import ConfigError
from swarm.util.http import site

UNREAD = [
    b"\x16\x03\x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
]
ELSEWHERE = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
EXPECTING = b"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n"
POSTING = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
FAILING = b"GET /fail HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n\r\n"


async def _say(_):
    return web.Response(text="here")


async def _fail(_):
    raise ZeroDivisionError("secret")


async def _ask(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await soon(reader.read())
    finally:
        writer.close()


@pytest.fixture
async def port():
    app = web.Application()
    app.add_routes([web.get("/", _say), web.get("/fail", _fail)])
    async with site(app, "127.0.0.1", 0, lambda why: ConfigError("port", why)) as port:
        yield port


async def test_answers_name_no_software(port):
    asked = [*UNREAD, ELSEWHERE, EXPECTING, POSTING, FAILING]
    answers = [await _ask(port, data) for data in asked]
    assert [int(answer.split()[1]) for answer in answers] == [400, 400, 404, 417, 405, 500]
    for answer in answers:
        assert b"Server: swarm\r\n" in answer
        assert not [
            word
            for word in (b"aiohttp", b"Python", b"secret", b"Traceback", b"<html")
            if word in answer
        ]
    assert b"Allow: GET,HEAD" in answers[4]
    assert b"too long" in answers[1]


async def test_a_port_that_is_taken_is_the_callers_own_error(port):
    with pytest.raises(ConfigError, match="in use"):
        async with site(web.Application(), "127.0.0.1", port, lambda why: ConfigError("port", why)):
            pass


async def test_nobody_listens_any_more_at_the_end():
    async with site(
        web.Application(), "127.0.0.1", 0, lambda why: ConfigError("port", why)
    ) as port:
        assert await _ask(port, ELSEWHERE)
    with pytest.raises(ConnectionError):
        await _ask(port, ELSEWHERE)
