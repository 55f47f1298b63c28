"""Ollama's interface, as its own package reads it."""

import json

import ollama
import pytest

from helpers.gateway_in_process import PROBLEM
from helpers.scripted_answers import scripted_gateway
from swarm.demo import TARGET
from swarm.demo.problems import answer_of
from swarm.gateway import sse

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
ANSWER = (
    "<think>\nTwo numbers.\n</think>\n\nI add.\n"
    '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
)
QUESTION = [{"role": "user", "content": "What is 1 + 2?"}]
GREEDY = {"temperature": 0}


def client_of(served):
    return ollama.AsyncClient(host=served.url)


def check(message, calls):
    assert (message["thinking"], message["content"]) == ("Two numbers.", "I add.")
    assert [(call.function.name, call.function.arguments) for call in calls] == [("add", {"a": 1})]


async def test_a_chat_has_thoughts_text_and_calls(demo):
    async with scripted_gateway(demo, ANSWER) as (served, prompts):
        asked = {"model": f"{TARGET}:latest", "messages": QUESTION, "tools": [ADD]}
        more = {"options": {"num_ctx": 4096, "num_predict": -1}, "keep_alive": "5m"}
        reply = await client_of(served).chat(**asked, **more)
        chunks = [chunk async for chunk in await client_of(served).chat(**asked, stream=True)]
    check(reply.message, reply.message.tool_calls)
    assert (reply.done, reply.done_reason, reply.model) == (True, "stop", TARGET)
    assert reply.prompt_eval_count > 0
    assert reply.eval_count > 0
    said = {
        name: "".join(getattr(chunk.message, name) or "" for chunk in chunks)
        for name in ("thinking", "content")
    }
    check(said, [call for chunk in chunks for call in chunk.message.tool_calls or ()])
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert '"name": "add"' in prompts[0]


async def test_history_and_switches_reach_the_template(demo):
    history = [
        *QUESTION,
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "tool_name": "add", "content": "3"},
    ]
    async with scripted_gateway(demo, "It is 3.") as (served, prompts):
        await client_of(served).chat(model=TARGET, messages=history, think=True)
    assert "<assistant>Hm.{" in prompts[0]
    assert "<tool>3</s>" in prompts[0]
    assert prompts[0].endswith("<think>\n")


async def test_texts_are_those_of_other_protocols(served):
    client = client_of(served)
    messages = [{"role": "user", "content": PROBLEM.question}]
    chat = await client.chat(model=TARGET, messages=messages, options=GREEDY)
    text = await client.generate(model=TARGET, prompt=PROBLEM.question, options=GREEDY)
    assert answer_of(chat.message.content) == PROBLEM.answer
    assert text.response == chat.message.content
    raw = await client.generate(
        model=TARGET, prompt=PROBLEM.prompt, raw=True, options=GREEDY | {"num_predict": 200}
    )
    assert raw.response == chat.message.content
    short = await client.generate(
        model=TARGET, prompt=PROBLEM.question, options=GREEDY | {"num_predict": 3}
    )
    assert (short.done_reason, short.eval_count) == ("length", 3)


async def test_a_format_is_kept(served):
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    reply = await client_of(served).chat(
        model=TARGET, messages=QUESTION, format=schema, options=GREEDY | {"num_predict": 300}
    )
    assert set(json.loads(reply.message.content)) == {"sure"}


async def test_models_are_listed_and_shown(served):
    client = client_of(served)
    (model,) = (await client.list()).models
    assert model.model == TARGET
    shown = await client.show(TARGET)
    assert shown.capabilities == ["completion", "tools"]
    assert 1024 in shown.modelinfo.values()
    status, _, body = await served.get("/api/version")
    assert (status, set(json.loads(body))) == (200, {"version"})


async def test_errors_have_ollamas_envelope(served):
    client = client_of(served)
    with pytest.raises(ollama.ResponseError, match="not served here") as told:
        await client.chat(model="other", messages=QUESTION)
    assert told.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="only text"):
        await client.generate(model=TARGET, prompt="x", images=[b"x"])
    for body in ({"model": TARGET, "messages": 7}, {"model": TARGET, "options": 7}):
        status, _, reply = await served.post("/api/chat", body)
        assert (status, list(reply)) == (400, ["error"])
        assert reply["error"].count(next(name for name in body if name != "model")) == 1


async def test_a_silent_stream_says_an_empty_line(served, monkeypatch):
    monkeypatch.setattr(sse, "OPEN_AFTER_S", 0.0)
    body = {"model": TARGET, "messages": QUESTION, "options": {"num_predict": 4}}
    async with served.http.post(f"{served.url}/api/chat", json=body) as response:
        lines = [json.loads(line) async for line in response.content]
    assert response.content_type == "application/x-ndjson"
    assert lines[0]["message"] == {"role": "assistant", "content": ""}
    assert lines[-1]["done"]


async def test_what_is_not_here_says_so(served):
    status, _, reply = await served.post("/v1/embeddings", {"model": TARGET, "input": "x"})
    assert status == 404
    assert "models here write text" in reply["error"]["message"]
