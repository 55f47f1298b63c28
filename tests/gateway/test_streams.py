"""A stream is never silent for long, whatever the swarm waits for."""

import asyncio
import json

import openai
import pytest

from helpers.gateway_in_process import Served, chat, gateway_over
from helpers.loopback import eventually, soon
from swarm.gateway import sse
from swarm.gateway.errors import Overloaded

DEFAULTS = (sse.OPEN_AFTER_S, sse.COMMENT_EVERY_S)
STREAM = chat(stream=True, max_tokens=4)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(sse, "OPEN_AFTER_S", 0.1)
    monkeypatch.setattr(sse, "COMMENT_EVERY_S", 0.1)


async def _lines(served: Served, body):
    """Yield the lines of a stream that are not empty."""
    async with served.http.post(f"{served.url}/v1/chat/completions", json=body) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        async for line in response.content:
            if line.strip():
                yield line.decode().strip()


async def _read(lines):
    return [line async for line in lines]


def _told(lines):
    """Parse events: all but the last, [DONE], are JSON."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


async def test_comments_come_while_a_prompt_is_read_and_the_text_after_them(served):
    tail = served.swarm.up[1].span
    tail.go_on.clear()
    lines = _lines(served, STREAM)
    for _ in range(3):
        assert await soon(anext(lines)) == ": still here"
    tail.go_on.set()
    events = _told(await soon(_read(lines)))
    assert events[-1]["choices"][0]["finish_reason"] == "length"


async def test_openais_package_takes_no_notice_of_comments(served):
    tail = served.swarm.up[1].span
    tail.go_on.clear()
    stream = await soon(served.openai.chat.completions.create(**STREAM))  # the headers are there
    tail.go_on.set()
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_comments_come_while_a_place_is_waited_for_and_an_error_is_the_last_event(
    demo, monkeypatch
):
    async with gateway_over(demo, places=1, waiting=1) as served:
        tail = served.swarm.up[1].span
        tail.go_on.clear()
        tail.entered.clear()
        first = asyncio.create_task(served.openai.chat.completions.create(**chat()))
        await soon(asyncio.to_thread(tail.entered.wait, 20))
        lines = _lines(served, STREAM)
        for _ in range(3):
            assert await soon(anext(lines)) == ": still here"
        await lines.aclose()
        monkeypatch.setattr("swarm.gateway.admission.AdmissionControl._take", _no_place)
        (error,) = _told(await soon(_read(_lines(served, STREAM))))
        assert error["error"]["code"] == "rate_limit_exceeded"
        assert error["error"]["type"] == "rate_limit_error"
        assert (
            b'swarm_requests_refused_total{code="rate_limit_exceeded"} 1.0'
            in (await served.get("/metrics"))[2]
        )
        tail.go_on.set()
        await first


async def _no_place(*_):
    await asyncio.sleep(0.3)
    raise Overloaded(1, 1, 10.0)


async def test_comments_come_while_a_peer_is_replaced(demo):
    async with gateway_over(demo) as served:
        # a loop a token, and never the end
        endless = {"max_tokens": 150, "logit_bias": {"2": -100}, "window": 0}
        lines = _lines(served, STREAM | endless)
        while not (await soon(anext(lines))).startswith("data: "):
            pass
        await served.swarm.up[1].die()
        while await soon(anext(lines)) != ": still here":
            pass
        await served.swarm.add((4, 8), cache_tokens=4096, max_positions=1024)
        assert _told(await soon(_read(lines)))[-1]["choices"][0]["finish_reason"] == "length"


async def test_what_fails_at_once_has_a_status_of_its_own(served, monkeypatch):
    monkeypatch.setattr(sse, "OPEN_AFTER_S", 60.0)
    with pytest.raises(openai.BadRequestError) as told:
        await served.openai.chat.completions.create(**chat("7 " * 2000, stream=True))
    assert told.value.code == "context_length_exceeded"


async def test_who_leaves_while_nothing_comes_ends_the_text(served):
    tail = served.swarm.up[1].span
    tail.go_on.clear()
    lines = _lines(served, STREAM)
    assert await soon(anext(lines)) == ": still here"
    await lines.aclose()
    tail.go_on.set()
    await eventually(lambda: served.sessions == 0)
    await eventually(lambda: all(peer.idle for peer in served.swarm.up))


OPENAI = ": still here"
SAID = [{"role": "user", "content": STREAM["messages"][0]["content"]}]
PROTOCOLS = {
    "/v1/chat/completions": ({"messages": SAID, "max_tokens": 4}, OPENAI, "data: [DONE]"),
    "/v1/completions": ({"prompt": "x", "max_tokens": 4}, OPENAI, "data: [DONE]"),
    "/v1/responses": ({"input": "x", "max_output_tokens": 4}, OPENAI, '"response.incomplete"'),
    "/v1/messages": ({"messages": SAID, "max_tokens": 4}, '{"type":"ping"}', '"message_stop"'),
    "/api/chat": ({"messages": SAID, "options": {"num_predict": 4}}, '"done":false', '"done":true'),
    "/api/generate": (
        {"prompt": "x", "options": {"num_predict": 4}},
        '"done":false',
        '"done":true',
    ),
}


@pytest.mark.parametrize("path", PROTOCOLS)
async def test_every_protocol_says_something_while_it_waits(served, path):
    fields, heartbeat, ending = PROTOCOLS[path]
    body = {"model": STREAM["model"], "stream": True, **fields}
    tail = served.swarm.up[1].span
    tail.go_on.clear()
    async with served.http.post(served.url + path, json=body) as response:
        assert response.status == 200
        for _ in range(3):
            said = b""
            while heartbeat not in said.decode():
                said += await soon(response.content.readline())
        tail.go_on.set()
        assert ending in (await soon(response.content.read())).decode()


def test_streams_begin_within_two_seconds_and_are_never_silent_for_more_than_ten():
    assert DEFAULTS == (2.0, 10.0)
