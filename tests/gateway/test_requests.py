"""Bodies of requests: every one is either read or refused in a sentence, whatever is in it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import chat

from swarm.decoding.sampling import MAX_SEED
from swarm.errors import SwarmError
from swarm.gateway.errors import MAX_MESSAGE_CHARS, BadRequest, problem_of
from swarm.gateway.requests import IGNORED, MAX_CHOICES, REFUSED, ChatBody, TextBody, read
from swarm.request import Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted({*ChatBody.model_fields, *TextBody.model_fields, *IGNORED, *REFUSED})
VALUES = JSON | st.sampled_from(
    [
        *(
            "auto",
            "strict",
            "adaptive:tau=1",
            10**400,
            -(2**63),
            2**63,
            1e308,
            -1,
            0,
            0.5,
            "",
            "x" * 5000,
            [[]],
            [1, 2],
        ),
        *([{"role": "user", "content": "x"}], [{"role": "user", "content": [{"type": "text", "text": 1}]}]),
        *({"0": 1}, {"²": 1}, {"9" * 20: 1}, {"-1": 1}, {"include_usage": True}),
    ]
)


def read_chat(**more):
    return read(json.dumps(chat("x", **more)).encode(), ChatBody)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from([ChatBody, TextBody]), fields=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_hostile_fields_are_read_or_refused(kind, fields):
    """What is read, the SDK takes, or refuses in a sentence that a client gets with status 400."""
    usual = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    mine = {name: value for name, value in usual.items() if name in kind.model_fields}
    body = json.dumps(mine | fields).encode()
    try:
        asked = read(body, kind)
        for number in range(asked.n):
            Request.of({**asked.options(number), "max_new_tokens": asked.new_tokens[0] or asked.new_tokens[1]})
    except SwarmError as error:
        problem = problem_of(error)
        assert problem.status == 400
        assert "\n" not in problem.message
        assert len(problem.message) <= MAX_MESSAGE_CHARS


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_hostile_bytes_are_refused(body):
    with pytest.raises(BadRequest):
        read(body, ChatBody)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"model": NaN}', b'{"model": "\\ud800"}', b""])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(BadRequest, match="JSON"):
        read(body, ChatBody)


def test_the_usual_fields_become_options():
    body = read_chat(seed=7, stop="x", top_p=0.5, logit_bias={"5": -3}, n=2, window=4, depth=1, max_completion_tokens=9)
    options = body.options(1)
    assert (options["seed"], options["stop"], options["top_p"], options["logit_bias"]) == (8, ["x"], 0.5, {5: -3.0})
    assert (options["window"], options["depth"], body.new_tokens[0]) == (4, 1, 9)
    assert read_chat().options(0)["seed"] is None
    assert read_chat(seed=-1).options(0)["seed"] == MAX_SEED  # any integer of 64 bits is a seed


def test_openais_default_of_the_temperature_is_one():
    body = read(b'{"model": "m", "prompt": "x"}', TextBody)
    assert body.options(0)["temperature"] == 1.0


def test_nulls_and_what_asks_for_nothing_are_left_out():
    body = read_chat(user="me", stop=None, seed=None, tools=[], presence_penalty=0, response_format={"type": "text"})
    assert body.stop == []


def test_an_answer_may_come_back_as_a_message():
    answer = {"role": "assistant", "content": "4", "refusal": None, "tool_calls": None, "annotations": []}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "me"}
    body = read(json.dumps({"model": "m", "messages": [answer, parts]}).encode(), ChatBody)
    assert [message.content for message in body.messages] == ["4", "a\nb"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"temperature": True}, "temperature", "valid number"),
        ({"n": MAX_CHOICES + 1}, "n", "less than or equal"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "parts like"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]},
            "messages[0].tool_calls",
            "no such field",
        ),
        ({"logit_bias": {"five": 1}}, "logit_bias", "'five' is no token id"),
        ({"top_logprobs": 2}, None, "only if logprobs is true"),
        ({"stream_options": {"include_usage": True}}, None, "only if stream is true"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, None, "give one of them"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    ],
    ids=lambda value: None,
)
def test_what_is_wrong_is_named(fields, param, words):
    with pytest.raises(BadRequest) as told:
        read_chat(**fields)
    assert told.value.param == param
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("prompt", "read_as"), [("x", ["x"]), ([1, 2], [[1, 2]]), (["x", "y"], ["x", "y"]), ([[1], [2]], [[1], [2]])]
)
def test_prompts_come_in_four_forms(prompt, read_as):
    assert read(json.dumps({"model": "m", "prompt": prompt}).encode(), TextBody).prompt == read_as
