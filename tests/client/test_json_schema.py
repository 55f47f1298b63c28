"""Schemas are narrowed where that takes away nothing that their authors want."""

import copy
import json

import pytest

from helpers.random_schemas import random_schema
from swarm.client.json_schema import MOST, narrow

DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
SUM = {"type": "object", "properties": {"first": DIGIT}, "required": ["first"]}
CLOSED = {**SUM, "additionalProperties": False}


def narrowed(schema):
    made = copy.deepcopy(schema)
    narrow(made)
    return made


@pytest.mark.parametrize(
    ("around", "inside"),
    [
        (lambda part: part, "the whole schema"),
        (lambda part: {"type": "array", "items": part}, "elements"),
        (lambda part: {"prefixItems": [part, DIGIT]}, "places"),
        (lambda part: {"anyOf": [part, {"type": "null"}]}, "choices"),
        (lambda part: {"$ref": "#/$defs/sum", "$defs": {"sum": part}}, "definitions"),
        (lambda part: {"type": "object", "additionalProperties": part}, "values"),
        (lambda part: {"properties": {"a": part}, "additionalProperties": True}, "properties"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_objects_are_closed_wherever_they_are(around, inside):
    assert narrowed(around(SUM)) == around(CLOSED)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**SUM, "additionalProperties": True},
        {**SUM, "patternProperties": {"^x": DIGIT}},
        {**SUM, "minProperties": 2},
        {**SUM, "required": ["another"]},
        {**SUM, "anyOf": [{"properties": {"second": DIGIT}}]},
        {"allOf": [SUM, {"properties": {"second": DIGIT}}]},
        {"oneOf": [SUM, {"properties": {"second": DIGIT}}]},
        {"const": SUM},
        {"enum": [SUM]},
        {"properties": 7, "required": None},
        True,
    ],
    ids=json.dumps,
)
def test_what_others_may_add_to_stays_open(schema):
    assert narrowed(schema) == schema


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ({"type": "integer"}, {"minimum": -MOST, "maximum": MOST}),
        ({"type": ["integer", "null"]}, {"minimum": -MOST, "maximum": MOST}),
        ({"type": "integer", "minimum": 0}, {"maximum": MOST}),
        ({"type": "integer", "exclusiveMaximum": 7}, {"minimum": -MOST}),
        ({"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1}, None),
        (DIGIT, {}),
        ({"type": "number"}, {}),
        ({"type": ["integer", "number"]}, {}),
        ({"type": "integer", "enum": [1 << 70]}, {}),
    ],
)
def test_integers_have_bounds(given, bounds):
    both = {"minimum": -MOST, "maximum": MOST}
    assert narrowed({"anyOf": [given]})["anyOf"] == [given | (both if bounds is None else bounds)]


def test_schemas_of_every_kind_are_closed():
    for seed in range(200):
        schema = random_schema(seed)
        opened = json.dumps(schema).replace(', "additionalProperties": false', "")
        assert narrowed(json.loads(opened)) == schema
