"""Texts over a gateway whose peers fail, and whose readers leave: real sockets, real peers."""

import asyncio
import json

import openai
import pytest

from helpers.gateway_in_process import Served, chat, gateway_over, named
from helpers.loopback import eventually, soon
from swarm.demo import TARGET
from swarm.gateway import availability
from swarm.gateway.admission import AdmissionControl
from swarm.util.tasks import end


async def test_readiness_says_which_layers_miss(demo):
    async with gateway_over(demo, [(0, 4)]) as served:
        assert (await served.get("/health"))[0] == 200
        status, _, body = await served.get("/ready")
        assert status == 503
        assert "no peer serves layers 4:8" in json.loads(body)["missing"][TARGET]
        with pytest.raises(openai.InternalServerError) as told:
            await served.openai.chat.completions.create(**chat())
        assert (told.value.status_code, told.value.code) == (503, "missing_layers")
        assert int(told.value.response.headers["Retry-After"]) > 0
        await served.swarm.add((4, 8), cache_tokens=4096, max_positions=1024)
        served.swarm.know(())
        assert (await served.get("/ready"))[0] == 200
        assert (await served.openai.chat.completions.create(**chat())).choices[
            0
        ].finish_reason == "stop"


async def test_a_model_whose_peers_are_gone_holds_no_places_and_starves_no_other(demo):
    """Its first texts hold places until they give up; later ones wait, and other models run."""
    gone, there = named(demo, "gone"), named(demo, "there")
    async with gateway_over(gone, beside=[there], places=4, waiting=16, patience_s=60.0) as served:
        body = chat(max_tokens=1)
        assert (await served.post("/v1/chat/completions", body | {"model": "gone"}))[0] == 200
        for peer in served.swarm.up:
            await peer.die()
        waiting = [
            asyncio.create_task(served.post("/v1/chat/completions", body | {"model": "gone"}))
            for _ in range(8)
        ]
        await soon(_says(served, b"vllm:num_requests_waiting 5.0"))
        status, _, answer = await soon(
            served.post("/v1/chat/completions", body | {"model": "there"})
        )
        assert (status, answer["model"]) == (200, "there")
        assert not any(task.done() for task in waiting)
        await end(*waiting)


async def test_once_peers_are_known_to_be_gone_no_place_is_held_for_them(demo, monkeypatch):
    taken, take = [], AdmissionControl._take

    async def note(*arguments):
        taken.append(arguments)
        await take(*arguments)

    monkeypatch.setattr(AdmissionControl, "_take", note)
    monkeypatch.setattr(availability, "PATIENCE_S", 0.0)
    async with gateway_over(demo, places=1, waiting=16, patience_s=0.0) as served:
        for peer in served.swarm.up:
            await peer.die()
        for _ in range(2):
            status, _, answer = await served.post("/v1/chat/completions", chat())
            assert (status, answer["error"]["code"]) == (503, "missing_layers")
        assert len(taken) == 1


async def test_requests_that_came_before_peers_were_known_to_be_gone_give_their_places_back(
    demo, monkeypatch
):
    """They are answered as soon as those that come later, and not after a text's own patience."""
    monkeypatch.setattr(availability, "PATIENCE_S", 0.0)
    monkeypatch.setattr(availability, "SILENT_S", 0.1)
    async with gateway_over(demo, places=2, patience_s=3600.0) as served:
        for peer in served.swarm.up:
            await peer.die()
        asking = [served.post("/v1/chat/completions", chat(n=n)) for n in (1, 1, 2)]
        for status, _, answer in await soon(asyncio.gather(*asking)):
            assert (status, answer["error"]["code"]) == (503, "missing_layers"), answer
        page = (await served.get("/metrics"))[2]
        assert b'swarm_generations_abandoned_total{model_name="demo-target"} 1.0' not in page


@pytest.mark.parametrize("stream", [True, False])
async def test_who_leaves_ends_the_text_and_the_peers_sessions(served: Served, stream):
    """Peers compute nothing for a reader who has left."""
    tail = served.swarm.up[1]
    tail.span.entered.clear()
    asking = asyncio.create_task(
        served.openai.chat.completions.create(**chat(stream=stream, max_tokens=800))
    )
    await soon(asyncio.to_thread(tail.span.entered.wait, 20))
    assert served.sessions == 2
    if stream:
        pieces = await soon(asking)
        await anext(pieces.__aiter__())
        await pieces.close()
    else:
        asking.cancel()
    await eventually(lambda: served.sessions == 0)
    assert all(peer.idle for peer in served.swarm.up)
    assert (
        b'swarm_generations_abandoned_total{model_name="demo-target"} 1.0'
        in (await served.get("/metrics"))[2]
    )


async def test_what_fails_in_mid_stream_is_the_last_event(demo):
    async with gateway_over(demo, patience_s=0.5) as served:
        stream = await served.openai.chat.completions.create(**chat(stream=True, max_tokens=800))
        assert (await anext(stream.__aiter__())).choices[0].delta.content
        await served.swarm.up[1].die()
        with pytest.raises(openai.APIError, match="no others took their place") as told:
            await _read(stream)
        assert told.value.code == "swarm_incomplete"


async def test_a_whole_reply_that_fails_does_not_promise_what_it_does_not_hold(demo):
    async with gateway_over(demo, patience_s=0.5) as served:
        tail = served.swarm.up[1]
        tail.span.entered.clear()
        asking = asyncio.create_task(served.post("/v1/chat/completions", chat(max_tokens=800)))
        await soon(asyncio.to_thread(tail.span.entered.wait, 20))
        await tail.die()
        status, headers, answer = await soon(asking)
        assert (status, answer["error"]["code"]) == (503, "swarm_incomplete")
        assert int(headers["Retry-After"]) > 0
        assert "ask again later" in answer["error"]["message"]
        assert "go on later" not in answer["error"]["message"]


async def _says(served, line):
    while line not in (await served.get("/metrics"))[2]:
        pass


async def _read(stream):
    return [chunk async for chunk in stream]
