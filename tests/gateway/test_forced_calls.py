"""An answer that has to call a tool does, with arguments that its schema allows."""

import json

import pytest

from helpers.gateway_in_process import chat
from swarm.dialogue.formats import BY_NAME
from swarm.gateway.errors import BadRequest
from swarm.gateway.forced_calls import FREE, forced_call
from swarm.gateway.tools import ToolChoice

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def tool(name, **parameters):
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", **parameters}},
    }


ADD = tool("add", properties={"a": {"type": "integer"}}, required=["a"])
NOW = tool("now")
REFERS = tool("move", properties={"to": {"$ref": "#/$defs/Point"}}, **{"$defs": {"Point": POINT}})
REQUIRED = ToolChoice("required")


def schema_of(form, *tools, choice=REQUIRED):
    return json.loads(forced_call(choice, tools, BY_NAME[form]).constraint.text)


def test_a_free_answer_is_not_begun():
    assert forced_call(ToolChoice("auto"), [ADD], BY_NAME["hermes"]) == FREE


@pytest.mark.parametrize(
    ("form", "opening", "key"),
    [
        ("hermes", "<tool_call>\n", "arguments"),
        ("llama", "", "parameters"),
        ("mistral", "[TOOL_CALLS][", "arguments"),
        ("granite", "<|tool_call|>[", "arguments"),
    ],
)
def test_a_call_as_an_object_is_one_of_the_tools(form, opening, key):
    assert forced_call(REQUIRED, [ADD, NOW], BY_NAME[form]).opening == opening
    calls = schema_of(form, ADD, NOW)["anyOf"]
    assert [call["properties"]["name"]["const"] for call in calls] == ["add", "now"]
    closed = ADD["function"]["parameters"] | {"additionalProperties": False}
    assert calls[0]["properties"][key] == closed
    named = schema_of(form, ADD, NOW, choice=ToolChoice("required", "now"))
    assert named["properties"]["name"] == {"const": "now"}


@pytest.mark.parametrize("form", ["harmony", "kimi"])
def test_a_named_call_begins_with_its_name(form):
    forced = forced_call(ToolChoice("required", "add"), [ADD, NOW], BY_NAME[form])
    assert "functions.add" in forced.opening
    schema = json.loads(forced.constraint.text)
    assert schema["properties"] == ADD["function"]["parameters"]["properties"]
    with pytest.raises(BadRequest, match="use auto"):
        forced_call(REQUIRED, [ADD, NOW], BY_NAME[form])


@pytest.mark.parametrize("form", ["glm", "qwen_xml", "minimax"])
def test_a_call_of_tags_is_begun_alone(form):
    forced = forced_call(ToolChoice("required", "add"), [ADD, NOW], BY_NAME[form])
    assert "add" in forced.opening
    assert forced.constraint is None
    assert forced_call(REQUIRED, [ADD, NOW], BY_NAME[form]).opening


def test_references_of_a_schema_find_their_definitions():
    schema = schema_of("hermes", ADD, REFERS)
    assert schema["$defs"] == {"Point": POINT}
    assert "$defs" not in schema["anyOf"][1]["properties"]["arguments"]


def test_definitions_of_one_name_that_differ_leave_the_arguments_free():
    other = tool("turn", **{"$defs": {"Point": {"type": "string"}}})
    schema = schema_of("hermes", REFERS, other)
    assert schema["$defs"] == {"Point": POINT}
    assert schema["anyOf"][1]["properties"]["arguments"] == {"type": "object"}


async def test_a_model_that_was_never_trained_for_it_calls_all_the_same(served):
    """The demo's target knows word problems alone; yet the call is one of the schema's."""
    small = {"type": "integer", "minimum": 0, "maximum": 9}
    tools = [tool("add", properties={"a": small, "b": small}, required=["a", "b"])]
    asked = chat(tools=tools, tool_choice="required", max_tokens=80)
    reply = await served.openai.chat.completions.create(**asked)
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert set(json.loads(call.function.arguments)) == {"a", "b"}
    assert reply.choices[0].finish_reason == "tool_calls"
