"""Calls and thoughts in OpenAI's chats, as its own package reads them."""

import json

import openai
import pytest

from helpers.gateway_in_process import chat
from helpers.scripted_answers import CHAT, scripted_gateway
from swarm.demo import TARGET
from swarm.dialogue.families.invoke import DSML

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
THINKS = "<think>\nTwo numbers.\n</think>\n\n"
CALLS = (
    'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
)
EXPECTED = [("add", {"a": 1}), ("now", {})]
ASKED = chat("What is 1 + 2?", tools=[ADD, NOW], max_tokens=100)


def called(message):
    return [
        (call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls
    ]


async def test_calls_and_thoughts_are_parts_of_a_message(demo):
    async with scripted_gateway(demo, THINKS + CALLS) as (served, prompts):
        (choice,) = (await served.openai.chat.completions.create(**ASKED)).choices
    assert called(choice.message) == EXPECTED
    assert choice.message.content == "I add."
    assert choice.message.reasoning_content == choice.message.reasoning == "Two numbers."
    assert choice.finish_reason == "tool_calls"
    assert len({call.id for call in choice.message.tool_calls}) == 2
    assert '"description": "Add two numbers."' in prompts[0]


async def test_calls_and_thoughts_are_streamed(demo):
    async with scripted_gateway(demo, THINKS + CALLS) as (served, _):
        async with served.openai.chat.completions.stream(**ASKED) as stream:
            final = await stream.get_final_completion()
        chunks = [
            chunk
            async for chunk in await served.openai.chat.completions.create(**ASKED, stream=True)
        ]
    assert called(final.choices[0].message) == EXPECTED
    assert final.choices[0].finish_reason == "tool_calls"
    deltas = [chunk.choices[0].delta for chunk in chunks]
    thoughts = [delta.reasoning_content for delta in deltas if hasattr(delta, "reasoning_content")]
    assert "".join(thoughts) == "Two numbers."
    assert len(thoughts) > 1
    assert "".join(delta.content or "" for delta in deltas) == "I add."
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]


async def test_one_call_at_a_time(demo):
    async with scripted_gateway(demo, CALLS) as (served, _):
        asked = {**ASKED, "parallel_tool_calls": False}
        (choice,) = (await served.openai.chat.completions.create(**asked)).choices
    assert called(choice.message) == EXPECTED[:1]


@pytest.mark.parametrize(
    ("choice", "opening"),
    [
        ("required", "<tool_call>\n"),
        ({"type": "function", "function": {"name": "add"}}, "<tool_call>\n"),
    ],
)
async def test_an_answer_is_made_to_call(demo, choice, opening):
    script = CALLS[CALLS.index(opening) + len(opening) :]
    async with scripted_gateway(demo, script) as (served, prompts):
        asked = {**ASKED, "tool_choice": choice}
        reply = await served.openai.chat.completions.create(**asked)
        async with served.openai.chat.completions.stream(**asked) as stream:
            final = await stream.get_final_completion()
    assert prompts[0].endswith(f"<assistant>{opening}")
    for each in (reply, final):
        assert called(each.choices[0].message) == EXPECTED


async def test_thoughts_that_the_prompt_opens_are_no_content(demo):
    async with scripted_gateway(demo, "Two.\n</think>\n\nIt is 3.") as (served, prompts):
        reply = await served.openai.chat.completions.create(
            **chat("x", max_tokens=100), extra_body={"enable_thinking": True}
        )
        required = await served.openai.chat.completions.create(
            **ASKED, tool_choice="required", reasoning_effort="low"
        )
    message = reply.choices[0].message
    assert (message.content, message.reasoning) == ("It is 3.", "Two.")
    assert prompts[0].endswith("<think>\n")
    assert prompts[1].endswith("<think>\n</think>\n\n<tool_call>\n")
    assert required.swarm[0].get("ignored") is None


async def test_without_tools_calls_are_text(demo):
    async with scripted_gateway(demo, CALLS) as (served, _):
        for more in ({}, {"tools": [ADD], "tool_choice": "none"}):
            reply = await served.openai.chat.completions.create(**chat("x", max_tokens=100, **more))
            assert reply.choices[0].message.content == CALLS
            assert reply.choices[0].finish_reason == "stop"


async def test_earlier_calls_reach_the_template(demo):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    async with scripted_gateway(demo, "It is 3.") as (served, prompts):
        await served.openai.chat.completions.create(model=TARGET, messages=messages, tools=[ADD])
    assert '<assistant>Hm.{"id": "c1", "type": "function"' in prompts[0]
    assert '"arguments": {"a": 1}' in prompts[0]
    assert "<tool>3" in prompts[0]


async def test_tools_are_described_where_the_template_knows_none(demo):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    async with scripted_gateway(demo, CALLS, template) as (served, prompts):
        (choice,) = (await served.openai.chat.completions.create(**ASKED)).choices
    assert called(choice.message) == EXPECTED
    assert "<tools>" in prompts[0]


async def test_tools_of_unknown_kinds_are_skipped_and_named(demo):
    async with scripted_gateway(demo, CALLS) as (served, prompts):
        asked = {**ASKED, "tools": [{"type": "web_search"}, ADD]}
        reply = await served.openai.chat.completions.create(**asked)
    assert reply.swarm[0]["ignored"] == ["tools[0]"]
    assert "web_search" not in prompts[0]


async def test_a_parser_may_be_named(demo):
    script = (
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
    )
    async with scripted_gateway(demo, script, tool_parser="qwen_xml") as (served, _):
        (choice,) = (await served.openai.chat.completions.create(**ASKED)).choices
    assert called(choice.message) == EXPECTED[:1]


async def test_a_form_that_cannot_be_opened_says_so(demo):
    template = CHAT.replace("<tool_call>", f"<{DSML}function_calls>")
    async with scripted_gateway(demo, "x", template) as (served, _):
        with pytest.raises(openai.BadRequestError) as told:
            await served.openai.chat.completions.create(**ASKED, tool_choice="required")
    assert told.value.param == "tool_choice"


async def test_special_tokens_have_text_where_they_are_wanted(served, demo):
    tokenizer = demo.models.tokenizer
    body = {
        "model": TARGET,
        "prompt": "x",
        "max_tokens": 1,
        "logit_bias": {str(tokenizer.eos_token_id): 100},
    }
    for skip, text in ((False, tokenizer.eos_token), (True, "")):
        status, _, reply = await served.post(
            "/v1/completions", body | {"skip_special_tokens": skip}
        )
        assert (status, reply["choices"][0]["text"]) == (200, text)
