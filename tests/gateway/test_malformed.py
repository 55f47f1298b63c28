"""Malformed requests: the answer is always in OpenAI's envelope, and names no software."""

import asyncio
import gzip
import json
import re
import zlib

from helpers.loopback import soon
from swarm.demo import TARGET
from swarm.gateway import browsers

SENSE = json.dumps({"model": TARGET, "prompt": "Mia", "max_tokens": 1}).encode()
PACKED = gzip.compress(SENSE)
TELLTALES = (b"aiohttp", b"Python", b"Traceback", b"site-packages")
LONG = b"a" * 20_000


def _get(*lines, target=b"/v1/models", method=b"GET", version=b"HTTP/1.1"):
    return b"\r\n".join(
        (
            b" ".join((method, target, version)),
            b"Host: localhost",
            *lines,
            b"Connection: close",
            b"",
            b"",
        )
    )


def _post(body, *lines, target=b"/v1/completions"):
    return _get(b"Content-Type: application/json", *lines, method=b"POST", target=target) + body


def _sized(body, *lines):
    return _post(body, b"Content-Length: %d" % len(body), *lines)


def _chunked(body):
    return _post(body, b"Transfer-Encoding: chunked")


REFUSED = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no version": (_get(version=b"HTTP/9.9"), 400),
    "broken method": (_get(method=b"G@T"), 400),
    "small method": (_get(method=b"get"), 400),
    "other method": (_get(method=b"DELETE"), 405),
    "connect": (_get(method=b"CONNECT", target=b"evil.example:80"), 404),
    "asterisk": (_get(method=b"OPTIONS", target=b"*"), 404),
    "broken host in target": (_get(target=b"http://[::1"), 400),
    "port out of range": (_get(target=b"http://a:99999999/"), 400),
    "no such path": (_get(b"Accept: text/html", target=b"/nothing"), 404),
    "broken percent": (_get(target=b"/v1/models/%ff%zz"), 404),
    "long target": (_get(target=b"/" + LONG), 400),
    "long header": (_get(b"X: " + LONG), 400),
    "many headers": (_get(*(b"X%d: x" % n for n in range(1000))), 400),
    "no colon": (_get(b"X"), 400),
    "null in a header": (_get(b"X: a\0b"), 400),
    "two hosts": (_get(b"Host: evil.example"), 400),
    "expectation": (_sized(SENSE, b"Expect: wonders"), 417),
    "expectation elsewhere": (_get(b"Expect: wonders", target=b"/nothing"), 417),
    "length below zero": (_post(SENSE, b"Content-Length: -5"), 400),
    "length no number": (_post(SENSE, b"Content-Length: two"), 400),
    "two lengths": (_post(SENSE, b"Content-Length: 2", b"Content-Length: 3"), 400),
    "length too large": (_post(SENSE, b"Content-Length: 999999999"), 413),
    "length and chunks": (
        _post(b"0\r\n\r\n", b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        400,
    ),
    "unknown transfer": (_post(SENSE, b"Transfer-Encoding: gzip"), 400),
    "broken chunk": (_chunked(b"zz\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk below zero": (_chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    "huge chunk": (_chunked(b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk without end": (_chunked(b"5\r\nhelloXX\r\n0\r\n\r\n"), 400),
    "no gzip": (_sized(SENSE, b"Content-Encoding: gzip"), 400),
    "half a gzip": (_sized(PACKED[:-9], b"Content-Encoding: gzip"), 400),
    "more behind a gzip": (_sized(PACKED + b"xx", b"Content-Encoding: gzip"), 400),
    "brotli": (_sized(SENSE, b"Content-Encoding: br"), 415),
    "zstd": (_sized(SENSE, b"Content-Encoding: zstd"), 415),
    "gzip twice": (_sized(gzip.compress(PACKED), b"Content-Encoding: gzip, gzip"), 415),
    "a bomb": (_sized(gzip.compress(b"[" * (64 << 20)), b"Content-Encoding: gzip"), 413),
    "no JSON": (_sized(b"\xff\xfe\x00"), 400),
    "broken origin": (_sized(SENSE, b"Origin: http://["), 403),
}
TAKEN = {
    "plain": _sized(SENSE),
    "identity": _sized(SENSE, b"Content-Encoding: identity"),
    "chunks": _chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(SENSE), SENSE)),
    "gzip": _sized(PACKED, b"Content-Encoding: gzip"),
    "gzip of members": _sized(
        gzip.compress(SENSE[:9]) + gzip.compress(SENSE[9:]), b"Content-Encoding: gzip"
    ),
    "deflate": _sized(zlib.compress(SENSE), b"Content-Encoding: deflate"),
    "bare deflate": _sized(zlib.compress(SENSE)[2:-4], b"Content-Encoding: deflate"),
}


async def _ask(url, data):
    """Send some bytes, and return head and body of the answer.

    The connection stays open for seconds where the gateway waits for the rest of a body.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        writer.write(data)
        head = await soon(reader.readuntil(b"\r\n\r\n"))
        length = re.search(rb"^Content-Length: (\d+)\r$", head, re.MULTILINE)
        assert length, head
        body = await soon(reader.readexactly(int(length[1])))
    finally:
        writer.close()
    return head.removesuffix(b"\r\n\r\n"), body


def _told(head, body):
    """Return status and type of an error, whose envelope has to be complete."""
    error = json.loads(body)["error"]
    assert error["message"].isprintable()
    assert not [word for word in TELLTALES if word in head + body]
    assert b"Server: swarm\r\n" in head + b"\r\n"
    assert b"X-Request-Id: " in head
    return int(head.split()[1]), error["type"]


async def test_whatever_is_sent_is_refused_in_the_envelope(served):
    told = {name: _told(*await _ask(served.url, data)) for name, (data, _) in REFUSED.items()}
    kinds = {403: "permission_error"}
    assert told == {
        name: (status, kinds.get(status, "invalid_request_error"))
        for name, (_, status) in REFUSED.items()
    }


async def test_every_way_to_send_a_body_is_taken(served):
    told = {name: await _ask(served.url, data) for name, data in TAKEN.items()}
    assert {name: head.split()[1] for name, (head, _) in told.items()} == dict.fromkeys(
        TAKEN, b"200"
    )
    assert all(json.loads(body)["usage"]["completion_tokens"] == 1 for _, body in told.values())


async def test_a_bug_outside_of_all_handlers_tells_nothing(served, monkeypatch):
    monkeypatch.setattr(browsers, "urlsplit", None)
    head, body = await _ask(served.url, _get())
    assert _told(head, body) == (500, "server_error")
