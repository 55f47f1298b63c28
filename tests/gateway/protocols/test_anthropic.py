"""Anthropic's Messages, as its own package reads them."""

import anthropic
import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel

from helpers.gateway_in_process import PROBLEM, gateway_over
from helpers.scripted_answers import scripted_gateway
from swarm.demo import TARGET
from swarm.demo.problems import answer_of
from swarm.gateway import sse
from swarm.gateway.errors import BadRequest
from swarm.gateway.keys import MIN_KEY_CHARS, ApiKeys
from swarm.gateway.protocols.anthropic_fields import as_chat
from swarm.gateway.requests import ChatBody
from swarm.gateway.validation import validated

ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
ANSWER = (
    "<think>\nTwo numbers.\n</think>\n\nI add.\n"
    '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
)
ASKED = {
    "model": TARGET,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "What is 1 + 2?"}],
    "tools": [ADD],
}
PLAIN = {
    "model": TARGET,
    "max_tokens": 200,
    "extra_body": {"temperature": 0},
    "messages": [{"role": "user", "content": PROBLEM.question}],
}
# What Claude Code sends beside a chat.
CLAUDE_CODE = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": "x"},
}


def client_of(served, key="no key"):
    return AsyncAnthropic(base_url=served.url, api_key=key, max_retries=0)


EXPECTED = [
    {"type": "thinking", "thinking": "Two numbers."},
    {"type": "text", "text": "I add."},
    {"type": "tool_use", "name": "add", "input": {"a": 1}},
]


def blocks_of(message):
    """Return the content of a message, as far as it is expected."""
    blocks = [block.model_dump() for block in message.content]
    return [
        {name: block[name] for name in expected}
        for block, expected in zip(blocks, EXPECTED, strict=True)
    ]


async def test_a_message_has_thoughts_text_and_calls(demo):
    async with scripted_gateway(demo, ANSWER) as (served, prompts), client_of(served) as client:
        message = await client.messages.create(**ASKED, extra_body=CLAUDE_CODE)
        count = await client.messages.count_tokens(
            **{name: ASKED[name] for name in ("model", "messages", "tools")},
            extra_body=CLAUDE_CODE,
        )
    assert blocks_of(message) == EXPECTED
    assert (message.stop_reason, message.role) == ("tool_use", "assistant")
    assert message.usage.input_tokens == count.input_tokens
    assert message.usage.output_tokens > 0
    assert prompts[0].startswith("<system>Be brief.</s><user>What is 1 + 2?")
    assert '"name": "add"' in prompts[0]
    assert "context_management" in message.swarm["ignored"]


async def test_a_message_is_streamed_block_by_block(demo):
    async with (
        scripted_gateway(demo, ANSWER) as (served, _),
        client_of(served) as client,
        client.messages.stream(**ASKED) as stream,
    ):
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert blocks_of(message) == EXPECTED
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 0
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3


async def test_text_of_the_model_is_that_of_other_protocols(served):
    async with client_of(served) as client:
        message = await client.messages.create(**PLAIN)
        stopped = await client.messages.create(**PLAIN, stop_sequences=["####", "@@"])
        short = await client.messages.create(**PLAIN | {"max_tokens": 3})
        most = await client.messages.create(**PLAIN | {"max_tokens": 20_000})
    (block,) = message.content
    assert answer_of(block.text) == PROBLEM.answer
    assert message.stop_reason == most.stop_reason == "end_turn"
    assert most.content == message.content  # what exceeds the context is cut to it
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "####")
    assert block.text.startswith(stopped.content[0].text + "####")
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 3)


async def test_results_of_tools_and_thoughts_come_back(demo):
    history = [
        {"role": "user", "content": "What is 1 + 2?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "3"},
                {"type": "text", "text": "Well?"},
            ],
        },
    ]
    async with scripted_gateway(demo, "It is 3.") as (served, prompts), client_of(served) as client:
        await client.messages.create(**ASKED | {"messages": history})
        begun = [*history, {"role": "assistant", "content": "It"}]
        await client.messages.create(**ASKED | {"messages": begun})
    assert '<assistant>Hm.I add.{"id": "t1"' in prompts[0]
    assert "<tool>3</s><user>Well?</s>" in prompts[0]
    assert prompts[1].endswith("<assistant>It")


async def test_deferred_tools_are_shown_once_a_search_has_found_them(demo):
    """Claude Code searches its tools so."""
    search = {**ADD, "name": "search", "description": "Find tools."}
    tools = [search, {**ADD, "defer_loading": True}]
    asked = {"role": "user", "content": "What is 1 + 2?"}
    call = {"type": "tool_use", "id": "t1", "name": "search", "input": {"a": 1}}
    found = [{"type": "tool_reference", "tool_name": "add"}, {"type": "image", "source": {}}]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": found}
    history = [
        asked,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    async with scripted_gateway(demo, "It is 3.") as (served, prompts), client_of(served) as client:
        first = await client.messages.create(**ASKED | {"tools": tools})
        await client.messages.create(**ASKED | {"tools": tools, "messages": history})
    assert first.swarm["ignored"] == ["tools[1]"]
    assert ["Add two numbers." in prompt for prompt in prompts] == [False, True]
    picture = "[image: this model reads text only]"
    assert f"<tool>The tool add can be called now.\n{picture}</s>" in prompts[1]


class Sure(BaseModel):
    sure: bool


async def test_an_answer_is_parsed(served):
    async with client_of(served) as client:
        message = await client.messages.parse(**PLAIN, output_format=Sure)
    assert isinstance(message.parsed_output, Sure)


async def test_tools_may_be_chosen(demo):
    opening = "<tool_call>\n"
    script = ANSWER[ANSWER.index(opening) + len(opening) :]
    async with scripted_gateway(demo, script) as (served, prompts), client_of(served) as client:
        for choice in ({"type": "any"}, {"type": "tool", "name": "add"}):
            message = await client.messages.create(**ASKED, tool_choice=choice)
            assert [block.type for block in message.content] == ["tool_use"]
    assert all(prompt.endswith(opening) for prompt in prompts)


async def test_a_silent_stream_is_pinged(demo, monkeypatch):
    monkeypatch.setattr(sse, "OPEN_AFTER_S", 0.0)
    async with gateway_over(demo) as served:
        body = ASKED | {"stream": True, "max_tokens": 4}
        async with served.http.post(f"{served.url}/v1/messages", json=body) as response:
            text = await response.text()
    assert text.startswith('event: ping\ndata: {"type":"ping"}\n\n')


async def test_errors_have_anthropics_envelope_and_keys_its_header(demo):
    key = "k" * MIN_KEY_CHARS
    async with gateway_over(demo, keys=ApiKeys([key])) as served:
        async with client_of(served, key) as client:
            assert await client.messages.create(**PLAIN | {"max_tokens": 2})
            with pytest.raises(anthropic.NotFoundError, match="not served here"):
                await client.messages.create(**PLAIN | {"model": "other"})
            with pytest.raises(anthropic.BadRequestError) as refused:
                await client.messages.create(**PLAIN | {"extra_body": {"top_p": 7}})
            assert refused.value.body["error"]["message"].count("top_p") == 1
        async with client_of(served, "another key") as client:
            with pytest.raises(anthropic.AuthenticationError) as told:
                await client.messages.create(**PLAIN)
    assert told.value.body["type"] == "error"
    assert told.value.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "only text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "a string"),
        ({"messages": ["x"]}, "an object"),
        ({"messages": [], "system": 1}, "a string or a list"),
        ({"messages": []}, "at least 1"),
        ({"messages": None}, "at least 1"),
        ({"tools": [{"name": "x" * 999, "input_schema": {}}]}, "at most 256"),
    ],
)
def test_what_no_chat_can_hold_is_refused(fields, words):
    def read():
        chat, renames = as_chat(ASKED | fields)
        return validated(chat, ChatBody, renames=renames)

    with pytest.raises(BadRequest, match=words):
        read()
