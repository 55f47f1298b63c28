"""Many at once: nobody fails, nobody starves, nothing piles up, and too many are told when to come back."""

import asyncio
import gc
import tracemalloc

import openai
import pytest
from served import chat, gateway_over
from support import eventually, soon

from swarm.demo.problems import problems

STREAMS = 32
TOKENS = 12
MOST_BYTES_EACH = 256 << 10  # held for a text: its tokens with their fates, its logits, buffers of its connection


async def test_32_streams_at_once_all_get_their_texts(served):
    """While the quickest of them is half done, the slowest one has begun; and all texts are as they are alone."""
    asked = problems(11, held_out=True)
    bodies = [
        chat(next(asked).question, max_tokens=TOKENS, logit_bias={"2": -100}, stream=True) for _ in range(STREAMS)
    ]
    alone = await _read(served, bodies[0], [0], 0)
    received = [0] * STREAMS
    halfway = asyncio.Event()
    reading = [asyncio.create_task(_read(served, body, received, at, halfway)) for at, body in enumerate(bodies)]
    await asyncio.wait_for(halfway.wait(), 60)
    spread = list(received)
    texts = await asyncio.wait_for(asyncio.gather(*reading), 120)
    assert received == [TOKENS] * STREAMS
    assert texts[0] == alone
    assert min(spread) > 0
    await eventually(lambda: served.sessions == 0)


async def _read(served, body, received, at, halfway=None):
    text = ""
    async for chunk in await served.openai.chat.completions.create(**body, extra_body={"explain": True}):
        received[at] += len(chunk.swarm.get("pieces", ()))
        text += chunk.choices[0].delta.content or ""
        if halfway is not None and received[at] >= TOKENS // 2:
            halfway.set()
    return text


async def test_what_is_held_for_texts_is_given_back(served):
    """After many texts the gateway holds no more than after few, and while they run, a bounded amount for each."""
    await _write_side_by_side(served)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            await _write_side_by_side(served)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (peak - before) / STREAMS < MOST_BYTES_EACH
    assert (after - before) / (3 * STREAMS) < MOST_BYTES_EACH / 64


async def _write_side_by_side(served):
    bodies = [chat(max_tokens=8, seed=at, stream=False) for at in range(STREAMS)]
    replies = await asyncio.gather(*(served.post("/v1/chat/completions", body) for body in bodies))
    assert [answer for status, _, answer in replies if status != 200] == []


async def test_too_many_are_told_when_to_come_back(demo):
    """One place and one that waits: the third is refused, the second has its turn when the first one leaves."""
    async with gateway_over(demo, places=1, waiting=1) as served:
        tail = served.swarm.up[1].span
        tail.go_on.clear()
        tail.entered.clear()
        first, second = (asyncio.create_task(served.openai.chat.completions.create(**chat())) for _ in range(2))
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
