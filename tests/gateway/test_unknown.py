"""Fields that are no part of the interface are ignored and named, or refused."""

import json

import pytest

from helpers.gateway_in_process import chat, gateway_over
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatBody
from swarm.gateway.unknown import HEADER, MAX_NAME_CHARS, MAX_NAMES, as_header
from swarm.gateway.validation import read

OF_OTHERS = {
    "chat_id": "1",
    "cache_prompt": True,
    "keep_alive": "5m",
    "options": {"num_ctx": 4096},
    "provider": {"order": ["a"]},
    "usage": {"include": True},
    "transforms": [],
    "messages": [
        {
            "role": "user",
            "id": "m1",
            "content": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                {"type": "input_text", "text": "y"},
            ],
        },
    ],
}
NAMED = (
    *("chat_id", "cache_prompt", "keep_alive", "options", "provider", "usage"),
    *("messages[0].id", "messages[0].content[0].cache_control"),
)


def read_chat(strict=False, **more):
    return read(json.dumps(chat("x", **more)).encode(), ChatBody, strict)


def test_fields_of_others_are_ignored_and_named():
    body = read_chat(**OF_OTHERS)
    assert sorted(body.ignored) == sorted(NAMED)
    assert body.messages[0].content == "x\ny"


@pytest.mark.parametrize("field", sorted(set(OF_OTHERS) - {"messages", "transforms"}))
def test_a_strict_gateway_refuses_each(field):
    with pytest.raises(BadRequest, match="this field is unknown") as told:
        read_chat(strict=True, **{field: OF_OTHERS[field]})
    assert (told.value.param, told.value.code) == (field, "unknown_parameter")


def test_a_strict_gateway_takes_all_fields_of_its_own():
    message = {"role": "assistant", "content": "x", "reasoning": "y", "refusal": "z"}
    body = read_chat(
        strict=True,
        stream_options={"include_usage": True},
        thinking={"type": "enabled", "budget_tokens": 9},
        reasoning={"effort": "low", "exclude": True},
        messages=[message],
    )
    assert body.ignored == ()


@pytest.mark.parametrize(
    ("field", "value"), [("typical_p", 0.5), ("use_beam_search", True), ("bad_words", ["x"])]
)
def test_what_would_change_the_text_is_refused(field, value):
    with pytest.raises(BadRequest) as told:
        read_chat(**{field: value})
    assert (told.value.param, told.value.code) == (field, "unsupported_parameter")


def test_names_are_bounded_and_can_break_no_header():
    body = read_chat(**{f"{number}" + "x\r\né" * 99: 1 for number in range(99)})
    assert len(body.ignored) == MAX_NAMES
    assert max(map(len, body.ignored)) == MAX_NAME_CHARS
    (line,) = as_header(body.ignored).values()
    assert line.isascii()
    assert line.isprintable()


async def test_replies_name_what_they_ignored(served):
    more = {"cache_prompt": True, "reasoning_effort": "low", "max_tokens": 4}
    named = ["cache_prompt", "reasoning_effort"]  # the demo's template knows no effort
    status, headers, reply = await served.post("/v1/chat/completions", chat(**more))
    assert (status, headers[HEADER]) == (200, ", ".join(named))
    assert [entry["ignored"] for entry in reply["swarm"]] == [named]
    url = f"{served.url}/v1/chat/completions"
    async with served.http.post(url, json=chat(stream=True, **more)) as response:
        assert response.headers[HEADER] == ", ".join(named)
        lines = (await response.text()).split("\n\n")
    chunks = [
        json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")
    ]
    told = [chunk["swarm"]["ignored"] for chunk in chunks if "ignored" in chunk.get("swarm", {})]
    assert told == [named]
    _, headers, reply = await served.post("/v1/chat/completions", chat(max_tokens=4))
    assert HEADER not in headers
    assert "ignored" not in reply["swarm"][0]


async def test_a_strict_gateway_answers_with_the_name(demo):
    async with gateway_over(demo, strict=True) as served:
        status, _, reply = await served.post("/v1/chat/completions", chat(chat_id=1))
        assert (status, reply["error"]["param"]) == (400, "chat_id")
