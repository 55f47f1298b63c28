"""The fields of several servers that constrain an answer, and what they become."""

import json

import pytest

from swarm.decoding.constraint import ANY_OBJECT, Constraint
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import ChatBody
from swarm.gateway.validation import read

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
OF_SCHEMA = Constraint("json_schema", json.dumps(SCHEMA))
NAMED = {"name": "answer", "strict": True, "schema": SCHEMA}


def body(**fields: object) -> ChatBody:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return read(json.dumps(chat).encode(), ChatBody)


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json_schema", ANY_OBJECT)),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, OF_SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": NAMED}}, OF_SCHEMA),
        ({"guided_json": SCHEMA}, OF_SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, OF_SCHEMA),
        ({"guided_regex": "a+"}, Constraint("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, Constraint("choice", '["a", "b"]')),
        ({"guided_grammar": 'start: "a"'}, Constraint("grammar", 'start: "a"')),
        ({"structured_outputs": {"json": SCHEMA}}, OF_SCHEMA),
        ({"structured_outputs": {"choice": ["a"]}}, Constraint("choice", '["a"]')),
        ({"structured_outputs": {"json_object": True}}, Constraint("json_schema", ANY_OBJECT)),
    ],
)
def test_each_field_is_one_constraint(
    fields: dict[str, object], constraint: Constraint | None
) -> None:
    asked = body(**fields)
    assert asked.options(0)["constraint"] == constraint
    assert asked.ignored == ()


@pytest.mark.parametrize(
    ("fields", "where", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs a schema"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "structured_outputs", "one format"),
        (
            {"guided_regex": "a", "structured_outputs": {"regex": "b"}},
            "structured_outputs",
            "mean the same",
        ),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "structured_outputs",
            "one format",
        ),
        ({"guided_choice": [3]}, "structured_outputs.choice[0]", "string"),
        ({"grammar": "root ::= x"}, "grammar", "guided_grammar"),
    ],
)
def test_what_is_no_format_is_refused(
    fields: dict[str, object], where: str | None, words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        body(**fields)
    assert refused.value.param == where
