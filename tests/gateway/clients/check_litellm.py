"""litellm, asking for chats as OpenAI's, Anthropic's and Ollama's clients do."""

import json

import litellm
from docs_snippet import messages, where

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two digits.",
        "parameters": {
            "type": "object",
            "properties": {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in "ab"},
            "required": ["a", "b"],
        },
    },
}
ADDRESS = where["api_base"].removesuffix("/v1")


def _ask(model="openai/demo-target", max_tokens=16, **more):
    return litellm.completion(
        model, messages, max_tokens=max_tokens, **{"temperature": 0, **where, **more}
    )


def _call_of(reply):
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert json.loads(call.function.arguments).keys() == {"a", "b"}
    return call


def a_chat():
    assert _ask().choices[0].message.content


def penalties():
    assert _ask(frequency_penalty=0.5, presence_penalty=0.2).choices[0].message.content


def a_tool():
    message = _ask(tools=[ADD]).choices[0].message
    assert message.content or message.tool_calls
    _call_of(_ask(tools=[ADD], tool_choice="required", max_tokens=200))


def a_tool_in_a_stream():
    chunks = list(_ask(tools=[ADD], tool_choice="required", max_tokens=200, stream=True))
    _call_of(litellm.stream_chunk_builder(chunks))


def the_result_of_a_tool():
    call = _call_of(_ask(tools=[ADD], tool_choice="required", max_tokens=200))
    history = [
        *messages,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "3"},
    ]
    reply = litellm.completion("openai/demo-target", history, tools=[ADD], max_tokens=16, **where)
    assert reply.usage.completion_tokens > 0


def json_of_any_kind():
    reply = _ask(response_format={"type": "json_object"}, max_tokens=200)
    assert reply.choices[0].message.content.startswith("{")


def json_of_a_schema():
    schema = {**ADD["function"]["parameters"], "additionalProperties": False}
    format_ = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    reply = _ask(response_format=format_, max_tokens=200)
    assert json.loads(reply.choices[0].message.content).keys() == {"a", "b"}


def anthropics_messages():
    asked = {"model": "anthropic/demo-target", "api_base": ADDRESS, "max_tokens": 200}
    assert _ask(**asked).choices[0].message.content
    _call_of(_ask(tools=[ADD], tool_choice="required", **asked))
    _call_of(
        litellm.stream_chunk_builder(
            list(_ask(tools=[ADD], tool_choice="required", stream=True, **asked))
        )
    )


def ollamas_chat():
    asked = {"model": "ollama_chat/demo-target", "api_base": ADDRESS}
    assert _ask(**asked).choices[0].message.content
    assert litellm.stream_chunk_builder(list(_ask(stream=True, **asked))).usage.completion_tokens


def openais_responses():
    reply = litellm.responses("What is 1 + 2?", "openai/demo-target", max_output_tokens=16, **where)
    assert reply.output[0].content[0].text
