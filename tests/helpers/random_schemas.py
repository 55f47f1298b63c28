"""Random JSON schemas of bounded size."""

import json
import random
from typing import Any

WORDS = ("name", "age", "x", "to be", "é", 'a"b')


def random_schema(seed: int, depth: int = 3) -> dict[str, Any]:
    """Return a schema of the kinds that requests for structured answers have."""
    return _schema(random.Random(seed), depth)


def _schema(chance: random.Random, depth: int) -> dict[str, Any]:
    kinds = [_string, _number, _integer, _constant, _boolean]
    if depth:
        kinds += [_object, _object, _array, _any_of]
    return chance.choice(kinds)(chance, depth - 1)


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(WORDS, chance.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: _schema(chance, depth) for name in names},
        "required": [name for name in names if chance.random() < 0.7],
        "additionalProperties": False,
    }


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    least = chance.randint(0, 2)
    return {
        "type": "array",
        "items": _schema(chance, depth),
        "minItems": least,
        "maxItems": least + chance.randint(0, 2),
    }


def _any_of(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_schema(chance, depth) for _ in range(chance.randint(1, 3))]}


def _string(chance: random.Random, depth: int) -> dict[str, Any]:
    return chance.choice(
        [
            {"type": "string", "maxLength": chance.randint(0, 8)},
            {"type": "string", "pattern": "^[a-c]{1,3}$"},
            {"enum": chance.sample(WORDS, 2)},
            {"type": "string", "format": "date"},
        ]
    )


def _number(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": chance.choice([1, 10.5])}


def _integer(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": -5, "maximum": chance.randint(-5, 1000)}


def _constant(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"const": chance.choice([1, "one", None, True, ["a", 1]])}


def _boolean(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"type": chance.choice(["boolean", "null"])}


def compact(schema: dict[str, Any]) -> str:
    """Return the schema as text, with the order of properties as they are."""
    return json.dumps(schema)
