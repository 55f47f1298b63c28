"""Many requests at once: none fails or starves, memory is bounded, and too many are refused."""

import asyncio
import gc
import tracemalloc

import openai
import pytest

from helpers.gateway_in_process import chat, gateway_over
from helpers.loopback import eventually, soon
from swarm.demo.problems import problems

STREAMS = 32
TOKENS = 8
AT_ONCE = 8
# held for a text, by its reader, the gateway and its peers together: all are in here
MOST_BYTES_EACH = 512 << 10
MOST_BYTES_LEFT = 4 << 10  # behind each text


async def test_32_streams_at_once_all_get_their_texts(served):
    """None waits for more batches than texts came before it, and each text is the same as alone."""
    asked = problems(11, held_out=True)
    options = {"max_tokens": TOKENS, "logit_bias": {"2": -100}, "stream": True}
    bodies = [chat(next(asked).question, **options) for _ in range(STREAMS)]
    alone = await _read(served, bodies[0])
    tail = served.swarm.up[1]
    before = len(tail.span.batches)
    tail.span.go_on.clear()
    reading = [asyncio.create_task(_read(served, body)) for body in bodies]
    queue = tail.scheduler
    await eventually(lambda: len(queue._computing) + len(queue._waiting) == STREAMS)
    tail.span.go_on.set()
    texts = await asyncio.wait_for(asyncio.gather(*reading), 300)
    assert [tokens for _, tokens in texts] == [TOKENS] * STREAMS
    assert texts[0] == alone
    begun = [size for batch in tail.span.batches[before:][:STREAMS] for size in batch if size > 1]
    assert len(begun) == STREAMS  # prompts; what follows them goes token by token
    await eventually(lambda: served.sessions == 0)


async def _read(served, body):
    """Return a text, and how many tokens it has."""
    text, tokens = "", 0
    async for chunk in await served.openai.chat.completions.create(
        **body, extra_body={"explain": True, "window": 0}
    ):
        tokens += len(chunk.swarm.get("pieces", ()))
        text += chunk.choices[0].delta.content or ""
    return text, tokens


async def test_what_is_held_for_texts_is_bounded_and_given_back(served):
    """Memory is bounded for each running text, and does not grow with the number of past texts."""
    await _write(served, 2)
    tracemalloc.start()
    try:
        held = [await _write(served, rounds) for rounds in (1, 3)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / AT_ONCE < MOST_BYTES_EACH
    assert (held[1] - held[0]) / (3 * AT_ONCE) < MOST_BYTES_LEFT


async def _write(served, rounds):
    """Generate texts, and return the bytes that are held afterwards."""
    bodies = [chat(max_tokens=4, window=0, seed=at) for at in range(AT_ONCE)]
    for _ in range(rounds):
        replies = await asyncio.gather(
            *(served.post("/v1/chat/completions", body) for body in bodies)
        )
        assert [answer for status, _, answer in replies if status != 200] == []
    await eventually(lambda: served.sessions == 0)
    for peer in served.swarm.up:
        peer.span.batches.clear()  # the test's own notes
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_too_many_are_told_when_to_come_back(demo):
    """One runs and one waits: a third is refused, and the second runs when the first one leaves."""
    async with gateway_over(demo, places=1, waiting=1) as served:
        tail = served.swarm.up[1].span
        tail.go_on.clear()
        tail.entered.clear()
        first, second = (
            asyncio.create_task(served.openai.chat.completions.create(**chat())) for _ in range(2)
        )
        await soon(asyncio.to_thread(tail.entered.wait, 20))
        await soon(_one_waits(served))
        with pytest.raises(openai.RateLimitError) as told:
            await served.openai.chat.completions.create(**chat())
        assert int(told.value.response.headers["Retry-After"]) >= 1
        assert told.value.code == "rate_limit_exceeded"
        first.cancel()
        tail.go_on.set()
        assert (await soon(second)).choices[0].finish_reason == "stop"


async def _one_waits(served):
    while b"vllm:num_requests_waiting 1.0" not in (await served.get("/metrics"))[2]:
        pass
