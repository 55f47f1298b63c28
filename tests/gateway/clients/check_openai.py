"""OpenAI's package: chats with what other clients put into them, and Responses."""

import json

import openai
from docs_snippet import client
from pydantic import BaseModel, Field

QUESTION = "What is 1 + 2?"
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}


class Sum(BaseModel):
    """What to add."""

    first: int = Field(ge=0, le=9)


def _ask(content=QUESTION, messages=(), **more):
    asked = {"model": "demo-target", "temperature": 0, "max_tokens": 16, **more}
    messages = messages or [{"role": "user", "content": content}]
    return client.chat.completions.create(messages=messages, **asked).choices[0]


def content_in_parts():
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "1 + 2?"}]
    assert _ask(parts).message.content


def no_content():
    assert _ask("").finish_reason


def the_format_of_a_schema():
    format_ = {
        "type": "json_schema",
        "json_schema": {"name": "sum", "schema": Sum.model_json_schema()},
    }
    assert json.loads(_ask(response_format=format_, max_tokens=200).message.content)


def a_history_of_calls():
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    call = {"id": "c1", "type": "function", "function": function}
    history = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert _ask(messages=history, tools=[ADD]).finish_reason


def no_limit_but_a_stop():
    choice = _ask(max_tokens=None, stop=["."])
    assert choice.finish_reason == "stop"
    assert "." not in choice.message.content


def how_much_to_think():
    assert _ask(reasoning_effort="low").message.content


def fields_of_other_servers():
    more = {"min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}}
    assert _ask(extra_body=more).message.content


def a_response():
    asked = {"model": "demo-target", "input": QUESTION, "max_output_tokens": 16}
    assert client.responses.create(**asked).output_text
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] in ("response.completed", "response.incomplete")


def a_response_with_the_format_of_a_model():
    asked = {"model": "demo-target", "input": QUESTION, "max_output_tokens": 200}
    assert isinstance(client.responses.parse(text_format=Sum, **asked).output_parsed, Sum)


def a_response_parsed(): ...


def embeddings_are_refused_with_a_sentence():
    told = ""
    try:
        client.embeddings.create(model="demo-target", input="x")
    except openai.NotFoundError as error:
        told = str(error)
    assert "models here write text" in told
