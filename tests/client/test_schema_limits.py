"""What of schemas is a remark, and which of them would take too long to compile."""

import json

import pytest
from client.test_grammar import ENDS, TOKENIZER, VOCABULARY, ids, schema

from swarm.client.grammar import Grammars
from swarm.client.schema_limits import FORMATS, MAX_MULTIPLE, MAX_PROPERTIES, prepare
from swarm.decoding.constraint import Constraint
from swarm.errors import RequestError


@pytest.fixture(scope="module")
def grammars():
    return Grammars(TOKENIZER, VOCABULARY)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_these_formats_are_followed(grammars, name):
    mask = grammars.mask(schema({"type": "string", "format": name}), ENDS)
    assert mask.banned(ids('" ')) is None


def test_other_formats_are_remarks(grammars):
    """As those of pydantic's paths and secrets, and of OpenAPI."""
    made = {"type": "string", "format": "file-path"}
    assert grammars.mask(schema(made), ENDS).ends(ids('"x"'))
    part = {"properties": {"format": {"type": "string"}}, "const": {"format": "x"}}
    kept = json.loads(json.dumps(part))
    prepare(part)
    assert part == kept
    named = {"type": "object", "properties": {"enum": made}, "required": ["enum"]}
    assert grammars.mask(schema(named), ENDS).ends(ids('{"enum": "x"}'))


def test_alternatives_of_which_one_holds_are_alternatives(grammars):
    """As pydantic writes unions that a field tells apart."""
    kinds = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, kind: {"type": "integer"}},
            "required": ["kind", kind],
        }
        for kind in ("cat", "dog")
    ]
    mask = grammars.mask(schema({"oneOf": kinds}), ENDS)
    assert mask.ends(ids('{"kind": "dog", "dog": 1}'))
    assert mask.banned(ids('{"kind": "dog", "cat"')) is None


def test_a_schema_of_one_word(grammars):
    assert grammars.mask(Constraint("json_schema", "true"), ENDS).ends(ids('{"a": 1}'))
    with pytest.raises(RequestError):
        grammars.mask(Constraint("json_schema", "false"), ENDS)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"multipleOf": MAX_MULTIPLE + 1}, "multipleOf"),
        ({"multipleOf": 1.23456}, "multipleOf"),
        ({"properties": {str(n): {} for n in range(MAX_PROPERTIES + 1)}}, "properties"),
        ({"properties": {"default": {"multipleOf": MAX_MULTIPLE + 1}}}, "multipleOf"),
    ],
)
def test_what_would_take_long_is_refused(grammars, part, field):
    with pytest.raises(RequestError) as refused:
        grammars.mask(schema({"type": "array", "items": part}), ENDS)
    assert refused.value.name == field


def test_multiples_of_usual_sizes_are_followed(grammars):
    for multiple in (0.01, 0.25, 5, 1000, 1e-9):
        grammars.mask(schema({"type": "number", "multipleOf": multiple}), ENDS)


def test_a_deep_schema_is_refused(grammars):
    deep = '{"items": ' * 150 + "{}" + "}" * 150
    with pytest.raises(RequestError, match="recursion"):
        grammars.mask(Constraint("json_schema", deep), ENDS)
