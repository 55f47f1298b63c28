"""Bodies of requests: each is either read, or refused in a sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.gateway_in_process import chat
from swarm.decoding.sampling import MAX_SEED
from swarm.demo import TARGET
from swarm.errors import SwarmError
from swarm.gateway.errors import MAX_MESSAGE_CHARS, BadRequest, error_reply
from swarm.gateway.requests import MAX_CHOICES, ChatBody, TextBody
from swarm.gateway.unknown import DROPPED, REFUSED
from swarm.gateway.validation import read
from swarm.request import Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = sorted({*ChatBody.model_fields, *TextBody.model_fields, *DROPPED, *REFUSED})
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
        *(
            [{"role": "user", "content": "x"}],
            [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        ),
        *({"0": 1}, {"²": 1}, {"9" * 20: 1}, {"-1": 1}, {"include_usage": True}),
    ]
)


def read_chat(**more):
    return read(json.dumps(chat("x", **more)).encode(), ChatBody)


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from([ChatBody, TextBody]),
    fields=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
)
def test_hostile_fields_are_read_or_refused(kind, fields):
    """The SDK accepts what is read, or refuses it in a sentence with status 400."""
    usual = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    mine = {name: value for name, value in usual.items() if name in kind.model_fields}
    body = json.dumps(mine | fields).encode()
    try:
        asked = read(body, kind)
        for number in range(asked.n):
            Request.of(
                {
                    **asked.options(number),
                    "max_new_tokens": asked.new_tokens[0] or asked.new_tokens[1],
                }
            )
    except SwarmError as error:
        reply = error_reply(error)
        assert reply.status == 400
        assert "\n" not in reply.message
        assert len(reply.message) <= MAX_MESSAGE_CHARS


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_hostile_bytes_are_refused(body):
    with pytest.raises(BadRequest):
        read(body, ChatBody)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"model": NaN}', b'{"model": "\\ud8"}', b""]
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(BadRequest, match="JSON"):
        read(body, ChatBody)


def test_the_usual_fields_become_options():
    body = read_chat(
        seed=7,
        stop="x",
        top_p=0.5,
        logit_bias={"5": -3},
        n=2,
        window=4,
        depth=1,
        max_completion_tokens=9,
    )
    options = body.options(1)
    assert (options["seed"], options["stop"], options["top_p"], options["logit_bias"]) == (
        8,
        ["x"],
        0.5,
        {5: -3.0},
    )
    assert (options["window"], options["depth"], body.new_tokens) == (4, 1, (None, 9))
    assert read_chat().options(0)["seed"] is None
    assert read_chat(seed=-2).options(1)["seed"] == MAX_SEED  # any integer is a seed


def test_openais_default_of_the_temperature_is_one():
    body = read(b'{"model": "m", "prompt": "x"}', TextBody)
    assert body.options(0)["temperature"] == 1.0


def test_nulls_and_what_asks_for_nothing_are_left_out():
    body = read_chat(
        user="me",
        stop=None,
        seed=None,
        tools=[],
        presence_penalty=0,
        response_format={"type": "text"},
    )
    assert body.stop == []


def test_an_answer_may_come_back_as_a_message():
    answer = {
        "role": "assistant",
        "content": "4",
        "refusal": None,
        "tool_calls": None,
        "annotations": [],
    }
    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        "name": "me",
    }
    body = read(json.dumps({"model": "m", "messages": [answer, parts]}).encode(), ChatBody)
    assert [message.content for message in body.messages] == ["4", "a\nb"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"temperature": True}, "temperature", "valid number"),
        ({"n": MAX_CHOICES + 1}, "n", "less than or equal"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role", "'system'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "parts have to be like",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "prefix": True}]},
            "messages[0]",
            "only messages of the assistant",
        ),
        ({"logit_bias": {"five": 1}}, "logit_bias", "'five' is no token id"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"max_tokens": -2}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
        ({"seed": True}, "seed", "valid integer"),
        (
            {"max_tokens": 3, "max_completion_tokens": 4},
            "max_completion_tokens",
            "only one of them",
        ),
        ({"json_schema": {"type": "object"}}, "json_schema", "response_format"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "required"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": "maybe"}, "tool_choice", "has to be"),
    ],
    ids=lambda value: None,
)
def test_what_is_wrong_is_named(fields, param, words):
    with pytest.raises(BadRequest) as told:
        read_chat(**fields)
    assert told.value.param == param
    assert words in str(told.value)


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), 1e308, -1e308, 2**64],
    ids=["long", "long_negative", "float", "negative_float", "beyond_64_bits"],
)
@pytest.mark.parametrize("kind", [ChatBody, TextBody])
def test_numbers_without_end_are_refused_by_the_name_of_their_field(kind, number):
    """Some huge numbers are valid: any integer is a seed, and a huge top_k keeps all tokens."""
    usual = (
        {"messages": [{"role": "user", "content": "x"}]} if kind is ChatBody else {"prompt": "x"}
    )
    more = ("max_completion_tokens", "top_logprobs") if kind is ChatBody else ("logprobs",)
    for name in ("max_tokens", "n", "window", "depth", "seed", "top_k", *more):
        with_logprobs = {"logprobs": True} if name == "top_logprobs" else {}
        body = json.dumps({"model": "m", **usual, **with_logprobs, name: number}).encode()
        if name == "seed" or (name == "top_k" and number > 0):
            assert Request.of(read(body, kind).options(0))
            continue
        with pytest.raises(SwarmError) as told:
            Request.of(read(body, kind).options(0))
        reply = error_reply(told.value)
        assert (reply.status, reply.param) == (400, name)
        assert len(reply.message) < 120


def test_token_ids_and_keys_without_end_are_not_quoted():
    ids = json.dumps({"model": "m", "prompt": [[1], [2, 10**400]]}).encode()
    with pytest.raises(BadRequest, match="no token id is beyond") as told:
        read(ids, TextBody)
    assert (told.value.param, len(str(told.value)) < 100) == ("prompt", True)
    for biases in ({"9" * 5000: 1}, {"9" * 5000: "x"}):
        with pytest.raises(BadRequest) as told:
            read_chat(logit_bias=biases)
        assert told.value.param.startswith("logit_bias")
        assert len(str(told.value)) < 200


def test_log_probabilities_of_a_completion_are_a_number():
    with pytest.raises(BadRequest, match="from 0 to 20") as told:
        read(b'{"model": "m", "prompt": "x", "logprobs": true}', TextBody)
    assert told.value.param == "logprobs"


async def test_more_tokens_than_any_context_are_refused_before_a_prompt_is_read(served):
    beyond = {"max_tokens": 10**400}
    for path, body in (
        ("/v1/chat/completions", chat()),
        ("/v1/completions", {"model": TARGET, "prompt": "x"}),
    ):
        status, _, reply = await served.post(path, body | beyond)
        assert (status, reply["error"]["param"]) == (400, "max_tokens")
        assert len(reply["error"]["message"]) < 100


# What clients send, and what it means.
MEANT = [
    ({"max_tokens": 0}, {}),
    ({"max_tokens": -1}, {}),
    ({"max_tokens": 7.0}, {"max_tokens": 7}),
    ({"seed": -1}, {}),
    ({"seed": 2**63}, {"seed": 0}),
    ({"seed": 10**40 + 5}, {"seed": (10**40 + 5) % 2**63}),
    ({"seed": 3.0}, {"seed": 3}),
    ({"n": 1.0}, {}),
    ({"top_k": -1}, {}),
    ({"top_k": 5.0}, {"top_k": 5}),
    ({"top_p": 0}, {"top_p": 0.0}),
    ({"temperature": 0, "top_p": 0}, {"temperature": 0.0, "top_p": 0.0}),
    ({"stop": ""}, {}),
    ({"stop": ["", "x"]}, {"stop": "x"}),
    ({"logprobs": False}, {}),
    ({"top_logprobs": 0}, {}),
    ({"top_logprobs": 0, "logprobs": False}, {}),
    ({"stream_options": {"include_usage": True}}, {}),
    ({"stream": False, "stream_options": {"include_usage": False}}, {}),
    ({"best_of": 1.0}, {}),
    ({"window": 4.0, "depth": 1.0}, {"window": 4, "depth": 1}),
]


def asked(kind, fields):
    """Return the options for the SDK, with a random seed where none is given."""
    more = {"messages": [{"role": "user", "content": "x"}]} if kind is ChatBody else {"prompt": "x"}
    body = read(json.dumps({"model": "m", **more, **fields}).encode(), kind)
    options = body.options(0)
    return body.n, body.new_tokens, Request.of({**options, "seed": options["seed"] or 0})


@pytest.mark.parametrize("kind", [ChatBody, TextBody])
@pytest.mark.parametrize(("fields", "meant"), MEANT, ids=str)
def test_what_clients_send_is_taken_for_what_it_means(kind, fields, meant):
    sent, as_if = asked(kind, fields), asked(kind, meant)
    assert sent == as_if


async def test_what_clients_send_is_answered(served):
    ends = {str(served.swarm._models.tokenizer.eos_token_id): 100}  # at once
    for path, body in (
        ("/v1/chat/completions", chat()),
        ("/v1/completions", {"model": TARGET, "prompt": "x"}),
    ):
        for fields, _ in MEANT:
            status, _, reply = await served.post(path, body | {"logit_bias": ends} | fields)
            assert status == 200, (path, fields, reply)
        beyond = served.swarm._checkpoint.vocab_size
        status, _, reply = await served.post(path, body | {"logit_bias": {str(beyond): 1}})
        assert (status, reply["error"]["param"]) == (400, "logit_bias")
        assert f"token ids from 0 to {beyond - 1}" in reply["error"]["message"]


def test_a_byte_order_mark_says_nothing():
    assert read(b'\xef\xbb\xbf{"model": "m", "prompt": "x"}', TextBody).prompt == ["x"]


@pytest.mark.parametrize(
    ("prompt", "read_as"),
    [("x", ["x"]), ([1, 2], [[1, 2]]), (["x", "y"], ["x", "y"]), ([[1], [2]], [[1], [2]])],
)
def test_prompts_come_in_four_forms(prompt, read_as):
    assert read(json.dumps({"model": "m", "prompt": prompt}).encode(), TextBody).prompt == read_as
