"""Bodies with an odd value somewhere: each is read, or refused in a sentence that names the field.

Values of all kinds take the place of every part of bodies as real clients send them.
"""

import json
from itertools import count

import pytest

from helpers.scripted_answers import CHAT
from swarm.demo import TARGET
from swarm.errors import RequestError, SwarmError
from swarm.gateway.app import TEXTS
from swarm.gateway.asked import asked_of
from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import BadRequest, error_reply
from swarm.gateway.prompts import ParserThreads, prompts_of
from swarm.gateway.protocols.anthropic import read_counted
from swarm.request import Request

SHARE = 11  # one of so many cases is tried; all of them take a minute
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"name": "add", "description": "Add.", "parameters": PARAMETERS, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": PARAMETERS}}
ALLOWED = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "add"}}]}
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "x"}]},
    {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
]
OPTIONS = {
    **{"n": 1, "max_tokens": 2, "seed": 1, "temperature": 0.5, "top_p": 1, "top_k": 0, "min_p": 0},
    **{"repetition_penalty": 1, "presence_penalty": 0, "logit_bias": {"5": 1}, "stop": ["x"]},
    **{"stop_token_ids": [5], "ignore_eos": False, "min_tokens": 0, "response_format": SCHEMA},
    **{"verify": "strict", "window": "auto", "stream_options": {"include_usage": True}},
}
CONTENT = [
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}},
]
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "3"}]}
CLAUDE = {
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": CONTENT},
        {"role": "user", "content": [RESULT]},
    ],
    "tools": [{"name": "add", "input_schema": PARAMETERS, "strict": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["a"],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": PARAMETERS}},
}
INPUT = [
    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
    {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "3"},
]
BODIES = [
    ("/v1/chat/completions", {**OPTIONS, "messages": MESSAGES, "tools": [TOOL], "reasoning": {}}),
    (
        "/v1/chat/completions",
        {
            "messages": MESSAGES,
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED},
            "chat_template_kwargs": {"a": 1},
            "structured_outputs": {"regex": "a"},
            "logprobs": True,
            "top_logprobs": 1,
        },
    ),
    (
        "/v1/chat/completions",
        {"messages": MESSAGES, "functions": [FUNCTION], "function_call": {"name": "add"}},
    ),
    ("/v1/completions", {**OPTIONS, "prompt": ["x", "y"], "logprobs": 1, "suffix": ""}),
    (
        "/v1/responses",
        {
            "input": INPUT,
            "instructions": "i",
            "tools": [{"type": "function", **FUNCTION}, {"type": "web_search"}],
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "x", "schema": PARAMETERS}},
            "max_output_tokens": 16,
        },
    ),
    ("/v1/messages", {**CLAUDE, "max_tokens": 2}),
    ("/v1/messages/count_tokens", CLAUDE),
    (
        "/api/chat",
        {
            "messages": [{"role": "user", "content": "x", "images": []}, MESSAGES[1]],
            "tools": [TOOL],
            "format": PARAMETERS,
            "options": {"temperature": 1, "num_predict": 2, "stop": ["x"], "num_ctx": 5},
            "think": True,
        },
    ),
    ("/api/generate", {"prompt": "x", "system": "s", "format": "json", "suffix": ""}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"num_predict": 2}}),
]
BROKEN = {"type": "x"}
DEEP = json.loads('{"a": ' * 150 + "1" + "}" * 150)
ODD = [
    *(None, True, False, 0, -1, 1, 1.5, 10**30, -(10**30), 1e308, "", "x", "\ud800", "\0"),
    *("日" * 50, "a" * 100_000, [], {}, [None], [[]], [{}], [0], [""], {"": None}, {"a": None}),
    *({"type": None}, {"type": []}, {"type": "function", "function": None}, {"name": "x" * 1000}),
    *(DEEP, [1] * 2000, ["x"] * 600, {"type": "json_schema", "json_schema": None}, "auto", "none"),
    *({"type": "text", "text": None}, [10**30], {"99999999": 1}, {"type": {}}, {"type": "any"}),
]


def paths(value, path=()):
    """Yield the places of all parts of a body."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, key))


def put(value, path, new):
    """Return a body with something else in one place."""
    if not path:
        return new
    made = value.copy()
    made[path[0]] = put(value[path[0]], path[1:], new)
    return made


@pytest.fixture
def models(demo, monkeypatch):
    monkeypatch.setattr(demo.models.tokenizer, "chat_template", CHAT)
    return demo.models


@pytest.fixture
def prepare(models):
    """Return a function that does all with a body that comes before its text is written."""

    async def prepare(path, body):
        data = json.dumps(body).encode()
        counts = path.endswith("count_tokens")
        read = read_counted if counts else TEXTS[path]().read
        asked_body = read(data, False)
        if not counts:
            new_tokens = asked_body.new_tokens[0] or 1
            request = Request.of({**asked_body.options(0), "max_new_tokens": new_tokens})
            request.check_vocabulary(models.checkpoint)
        asked = asked_of(asked_body, models.tokenizer)
        with ParserThreads() as threads:
            prompts = await prompts_of(asked, models, threads)
        for prompt in prompts:
            if constraint := asked.constraint(prompt):
                models.grammars.mask(constraint, models.checkpoint.eos_token_ids)

    return prepare


async def test_no_body_is_a_bug(prepare):
    number, refused, taken = count(), 0, 0
    for path, fields in BODIES:
        body = {"model": TARGET, **fields}
        await prepare(path, body)
        for place in paths(body):
            for odd in ODD:
                if next(number) % SHARE:
                    continue
                try:
                    await prepare(path, put(body, place, odd))
                    taken += 1
                except SwarmError as error:
                    reply = error_reply(error)
                    assert reply.status < 500, (path, place, odd)
                    assert reply.message.isprintable()
                    refused += 1
    assert refused > 500
    assert taken > 200


@pytest.mark.parametrize(
    ("path", "place", "odd", "param"),
    [
        ("/v1/responses", ("input", 0, "role"), 3, "input[0].role"),
        ("/v1/responses", ("input", 3, "output"), 3, "input[3]"),
        ("/v1/responses", ("instructions",), 3, "instructions"),
        ("/v1/responses", ("max_output_tokens",), "x", "max_output_tokens"),
        ("/v1/responses", ("text", "format", "schema"), 3, "text.format.schema"),
        ("/v1/responses", ("tools", 0, "name"), "", "tools[0].name"),
        ("/v1/messages", ("messages", 1, "role"), "x", "messages[1].role"),
        ("/v1/messages", ("messages", 0, "content"), 3, "messages[0]"),
        ("/v1/messages", ("stop_sequences",), 3, "stop_sequences"),
        ("/v1/messages", ("tools", 0, "input_schema"), 3, "tools[0].input_schema"),
        ("/v1/messages", ("output_config", "format", "schema"), 3, "output_config.format.schema"),
        ("/api/chat", ("options", "temperature"), -1, "options.temperature"),
        ("/api/chat", ("options", "num_predict"), "x", "options.num_predict"),
        ("/api/generate", ("prompt",), 3, "prompt"),
        ("/api/generate", ("system",), 3, "system"),
        ("/v1/chat/completions", ("logit_bias", "5"), "x", "logit_bias.5"),
        ("/v1/chat/completions", ("tool_choice", "allowed_tools", "mode"), {}, "tool_choice"),
        ("/v1/messages", ("messages", 1, "content", 0, "type"), [], "messages[1].content[0]"),
    ],
)
async def test_errors_name_fields_as_the_protocol_does(prepare, path, place, odd, param):
    fields = next(fields for where, fields in BODIES if where == path and place[0] in fields)
    with pytest.raises(BadRequest) as refused:
        await prepare(path, put({"model": TARGET, **fields}, place, odd))
    assert refused.value.param == param
    assert str(refused.value).startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": BROKEN}}}, None),
        ({"guided_json": BROKEN}, "structured_outputs.json"),
        ({"guided_regex": "a("}, "structured_outputs.regex"),
        (
            {"tools": [{"type": "function", "function": {**FUNCTION, "parameters": BROKEN}}]},
            "tools",
        ),
    ],
)
async def test_what_cannot_be_compiled_is_named(prepare, fields, param):
    body = {"model": TARGET, "messages": MESSAGES, **fields}
    with pytest.raises(RequestError) as refused:
        await prepare("/v1/chat/completions", body)
    assert error_reply(refused.value).param == (param or "response_format")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\ude00\ud83d\ud83d\ude00", "\ufffd\ufffd😀"),
        (r"\\ud83d \" \n \ud83dx", '\\ud83d " \n \ufffdx'),
    ],
)
def test_halves_of_characters_are_read(text, read):
    """JavaScript's strings may be cut within an emoji, and are sent so."""
    assert read_object(rb'{"a": "%s"}' % text.encode()) == {"a": read}


def test_what_is_broken_besides_is_refused():
    with pytest.raises(BadRequest, match="not valid JSON"):
        read_object(rb'{"a": "\ud83d", }')
    with pytest.raises(BadRequest, match="not valid JSON"):
        read_object(rb'{"a": "\ud83')
