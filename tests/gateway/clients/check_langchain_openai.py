"""LangChain's chat model: texts, streams, tools, and structured output in all three ways."""

from typing import Annotated, Literal

from docs_snippet import model as documented
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

QUESTION = "What is 1 + 2?"
Digit = Annotated[int, Field(ge=0, le=9)]
# Sampled, JSON of the demo's model may be longer than an answer may be.
model = documented.model_copy(update={"temperature": 0})
brief = model.bind(max_tokens=16)


@tool
def _add(a: Digit, b: Digit) -> int:
    """Add two digits."""
    return a + b


class Sum(BaseModel):
    """What to add."""

    first: Digit
    unit: Literal["apples", "coins"]


def a_text():
    reply = brief.invoke(QUESTION)
    assert reply.content
    assert reply.usage_metadata["output_tokens"] > 0


def a_stream():
    chunks = list(brief.stream(QUESTION, stream_usage=True))
    assert "".join(chunk.content for chunk in chunks)
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata)


def a_tool_and_its_result():
    assert brief.bind_tools([_add]).invoke(QUESTION)
    asked = [HumanMessage(QUESTION)]
    reply = model.bind_tools([_add], tool_choice="any").invoke(asked)
    (call,) = reply.tool_calls
    assert call["name"] == "_add"
    result = ToolMessage(_add.invoke(call["args"]), tool_call_id=call["id"])
    assert brief.bind_tools([_add]).invoke([*asked, reply, result])


def a_tool_in_a_stream():
    whole = None
    for chunk in model.bind_tools([_add], tool_choice="_add").stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    assert call["args"].keys() == {"a", "b"}


def structured_output():
    for method in ("json_schema", "function_calling"):
        found = model.with_structured_output(Sum, method=method).invoke(QUESTION)
        assert isinstance(found, Sum), method


def json_of_any_kind():
    way = {"method": "json_mode", "include_raw": True}
    found = model.with_structured_output(Sum, **way).invoke(QUESTION, max_tokens=16)
    assert found["raw"].content.startswith("{")


def responses():
    asked = model.model_copy(update={"use_responses_api": True, "output_version": "responses/v1"})
    assert asked.invoke(QUESTION, max_tokens=16).content
    (call,) = asked.bind_tools([_add], tool_choice="any").invoke(QUESTION).tool_calls
    assert call["name"] == "_add"
    assert list(asked.stream(QUESTION, max_tokens=16))
