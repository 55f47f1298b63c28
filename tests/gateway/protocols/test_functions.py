"""Functions, which were OpenAI's form of tools before: answers have that form, too."""

import json

import pytest
from gateway.protocols.test_openai import ADD, CALLS, NOW, THINKS

from helpers.gateway_in_process import chat
from helpers.scripted_answers import scripted_gateway

FUNCTIONS = [ADD["function"], NOW["function"]]
ASKED = chat("What is 1 + 2?", functions=FUNCTIONS, max_tokens=100)
CALL = {"name": "add", "arguments": '{"a": 1}'}
HISTORY = [
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": None, "function_call": CALL},
    {"role": "function", "name": "add", "content": "3"},
]


async def test_a_call_is_the_function_call_of_its_message(demo):
    async with scripted_gateway(demo, THINKS + CALLS) as (served, prompts):
        (choice,) = (await served.openai.chat.completions.create(**ASKED)).choices
    assert choice.message.function_call.model_dump() == CALL
    assert choice.message.tool_calls is None
    assert (choice.message.content, choice.finish_reason) == ("I add.", "function_call")
    assert '"description": "Add two numbers."' in prompts[0]


async def test_a_call_is_streamed_as_a_function_call(demo):
    async with scripted_gateway(demo, CALLS) as (served, _):
        stream = await served.openai.chat.completions.create(**ASKED, stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
    parts = [each.delta.function_call for each in choices if each.delta.function_call]
    assert [part.name for part in parts if part.name] == ["add"]
    assert json.loads("".join(part.arguments for part in parts)) == {"a": 1}
    assert not [each for each in choices if each.delta.tool_calls]
    assert choices[-1].finish_reason == "function_call"


async def test_an_answer_can_be_made_to_call_one_or_none(demo):
    async with scripted_gateway(demo, '{"name": "now", "arguments": {}}') as (served, prompts):
        chosen = await served.openai.chat.completions.create(**ASKED, function_call={"name": "now"})
        free = await served.openai.chat.completions.create(**ASKED, function_call="none")
    assert chosen.choices[0].message.function_call.name == "now"
    assert prompts[0].endswith("<tool_call>\n")
    assert free.choices[0].message.function_call is None
    assert "Add two numbers" not in prompts[1]


async def test_calls_of_the_history_have_ids_for_the_template(demo):
    """Templates of Mistral's refuse calls whose id has not nine characters."""
    template = (
        "{% for m in messages %}{% for c in m.tool_calls %}[{{ c.id }}]{% endfor %}"
        "{% if m.role == 'tool' %}({{ m.tool_call_id }}){% endif %}{% endfor %}"
        "{% if false %}<tool_call>{% endif %}"
    )
    async with scripted_gateway(demo, "3", template) as (served, prompts):
        body = {**ASKED, "messages": HISTORY * 2}
        assert (await served.post("/v1/chat/completions", body))[0] == 200
    assert prompts == ["[call00001](call00001)[call00002](call00002)"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [ADD]}, "functions"),
        ({"function_call": "required"}, "function_call"),
        ({"function_call": {"name": "other"}}, "function_call"),
        ({"functions": [{"name": ""}]}, "functions[0].name"),
    ],
)
async def test_what_is_wrong_with_them_is_named(demo, fields, param):
    async with scripted_gateway(demo, CALLS) as (served, _):
        status, _, reply = await served.post("/v1/chat/completions", {**ASKED, **fields})
    assert (status, reply["error"]["param"]) == (400, param)
