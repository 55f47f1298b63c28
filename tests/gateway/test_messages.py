"""The messages of a chat, as clients send them."""

import json

import pytest

from helpers.gateway_in_process import chat
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatBody
from swarm.gateway.validation import read

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def messages_of(*messages, **more):
    body = read(json.dumps(chat("x", messages=list(messages), **more)).encode(), ChatBody)
    return body, [message.as_message() for message in body.messages]


def test_calls_and_their_results_come_back_as_history():
    _, (asked, called, result) = messages_of(
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
    )
    assert asked == {"role": "user", "content": "x"}
    assert called == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert result == {"role": "tool", "content": "3", "tool_call_id": "c1", "name": ""}


def test_a_picture_that_a_tool_returns_does_not_end_the_conversation():
    text, picture = {"type": "text", "text": "a.png"}, {"type": "input_image", "image_url": "x"}
    result = {"role": "tool", "tool_call_id": "c1", "content": [text, picture]}
    body, (message,) = messages_of(result)
    assert message["content"] == "a.png\n[input_image: this model reads text only]"
    assert body.ignored == ("messages[0].content[1].image_url",)
    with pytest.raises(BadRequest, match="have to be like"):
        messages_of({**result, "content": [{"type": ["text"], "text": "x"}]})


def test_the_older_form_of_calls_is_read_too():
    _, (called, result) = messages_of(
        {"role": "assistant", "function_call": {"name": "add", "arguments": {"a": 1}}},
        {"role": "function", "name": "add", "content": "3"},
    )
    assert called["tool_calls"][0]["function"] == CALL["function"]
    assert (result["role"], result["name"]) == ("tool", "add")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_come_back_as_history(name):
    body, (message,) = messages_of({"role": "assistant", "content": "4", name: "2 + 2"})
    assert message == {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    assert body.ignored == ()


@pytest.mark.parametrize("how", ["prefix", "partial", "continue_final_message"])
def test_an_answer_may_be_begun(how):
    last = {"role": "assistant", "content": "The"}
    more = {}
    if how == "continue_final_message":
        more[how] = True
    else:
        last[how] = True
    body, _ = messages_of({"role": "user", "content": "x"}, last, **more)
    assert body.continues
    assert not messages_of({"role": "user", "content": "x"}, {"role": "assistant"})[0].continues


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "tool_calls": [CALL]}, "only messages of the assistant"),
        ({"role": "user", "prefix": True}, "only messages of the assistant"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "field required"),
        ({"role": "user", "content": [{"type": "image_url", "text": "x"}]}, "have to be like"),
        ({"role": "user", "content": [{"type": [], "text": "x"}]}, "have to be like"),
    ],
)
def test_what_no_message_can_be_is_refused(message, words):
    with pytest.raises(BadRequest, match=words):
        messages_of(message)
