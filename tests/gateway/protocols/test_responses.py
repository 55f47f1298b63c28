"""OpenAI's Responses, as its own package reads them."""

import json

import openai
import pytest

from helpers.gateway_in_process import PROBLEM
from helpers.scripted_answers import scripted_gateway
from swarm.demo import TARGET
from swarm.demo.problems import answer_of
from swarm.gateway.errors import BadRequest
from swarm.gateway.protocols.responses_fields import as_chat

ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
ANSWER = (
    "<think>\nTwo numbers.\n</think>\n\nI add.\n"
    '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
)
ASKED = {"model": TARGET, "input": "What is 1 + 2?", "tools": [ADD], "max_output_tokens": 100}
# What Codex sends beside a conversation.
CODEX = {
    "instructions": "Be brief.",
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "none", "summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "x",
    "text": {"verbosity": "medium"},
}
OTHER_TOOLS = [
    {"type": "web_search"},
    {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
]


def check(response):
    thought, message, call = response.output
    assert thought.content[0].text == "Two numbers."
    assert response.output_text == message.content[0].text == "I add."
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "add", {"a": 1})
    assert response.status == "completed"
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.usage.total_tokens > response.usage.output_tokens > 0


async def test_a_response_has_thoughts_a_message_and_calls(demo):
    async with scripted_gateway(demo, ANSWER) as (served, prompts):
        asked = ASKED | {"tools": [*OTHER_TOOLS, ADD]}
        response = await served.openai.responses.create(**asked, **CODEX)
    check(response)
    assert response.instructions == "Be brief."
    assert response.swarm["ignored"] == ["tools[0]", "tools[1]"]
    assert prompts[0].startswith("<system>Be brief.</s><user>What is 1 + 2?</s>")
    assert "apply_patch" not in prompts[0]


async def test_a_response_is_streamed_item_by_item(demo):
    async with (
        scripted_gateway(demo, ANSWER) as (served, _),
        served.openai.responses.stream(**ASKED) as stream,
    ):
        events = [event async for event in stream]
        final = await stream.get_final_response()
    check(final)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    for of_item in ("reasoning_text", "output_text", "function_call_arguments"):
        deltas = [event.delta for event in events if event.type == f"response.{of_item}.delta"]
        (done,) = [event for event in events if event.type == f"response.{of_item}.done"]
        assert "".join(deltas) == getattr(done, "text", None) or done.arguments
    assert kinds.count("response.output_item.added") == 3
    assert kinds.count("response.output_item.done") == 3
    assert kinds.count("response.content_part.done") == 2


async def test_text_of_the_model_is_that_of_other_protocols(served):
    asked = {"model": TARGET, "input": PROBLEM.question, "temperature": 0}
    whole = await served.openai.responses.create(**asked)
    assert answer_of(whole.output_text) == PROBLEM.answer
    short = await served.openai.responses.create(**asked, max_output_tokens=16)
    assert short.status == "incomplete"
    assert short.incomplete_details.reason == "max_output_tokens"
    assert whole.output_text.startswith(short.output_text)


async def test_what_a_response_had_comes_back_as_input(demo):
    async with scripted_gateway(demo, ANSWER) as (served, prompts):
        first = await served.openai.responses.create(**ASKED)
        items = [item.model_dump(exclude_none=True) for item in first.output]
        result = {
            "type": "function_call_output",
            "call_id": first.output[2].call_id,
            "output": [{"type": "input_text", "text": "3"}],
        }
        asked = [{"role": "user", "content": [{"type": "input_text", "text": "What is 1 + 2?"}]}]
        await served.openai.responses.create(**ASKED | {"input": [*asked, *items, result]})
    assert "<assistant>Two numbers.I add.{" in prompts[1]
    assert '"name": "add", "arguments": {"a": 1}' in prompts[1]
    assert "<tool>3</s>" in prompts[1]


async def test_the_format_of_the_text_is_kept(served):
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    response = await served.openai.responses.create(
        model=TARGET, input="Sure?", text=text, temperature=0, max_output_tokens=300
    )
    assert set(json.loads(response.output_text)) == {"sure"}


async def test_nothing_is_stored(served):
    with pytest.raises(openai.BadRequestError, match="nothing is stored"):
        await served.openai.responses.create(model=TARGET, input="x", previous_response_id="resp_1")


def test_what_one_turn_said_is_one_message():
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": "b"},
        call,
        call,
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "web_search_call", "id": "w"},
        {"type": "reasoning", "content": []},
        call,
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    chat, skipped, _ = as_chat({"model": "m", "input": items})
    assert skipped == ["input[6]"]
    roles = [message["role"] for message in chat["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "assistant", "assistant"]
    said = chat["messages"][1]
    assert (said["reasoning"], said["content"], len(said["tool_calls"])) == ("hm", "b", 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": None}, "a string or a list"),
        ({"input": ["x"]}, "an object"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "send the item itself"),
        ({"input": "x", "background": True}, "nothing is stored"),
        ({"input": "x", "top_logprobs": 3}, "by chats alone"),
    ],
)
def test_what_no_chat_can_hold_is_refused(fields, words):
    with pytest.raises(BadRequest, match=words):
        as_chat(fields)
