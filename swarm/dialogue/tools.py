"""The tools that a model may call: their names and the types of their arguments."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

PYTHON = {"True": True, "False": False, "None": None}


class Tools:
    """Functions as JSON schemas, in OpenAI's form: ``{"type": "function", "function": {...}}``."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        self._schemas = {
            tool["function"]["name"]: tool["function"].get("parameters") for tool in tools
        }

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._schemas)

    def typed(self, name: str, argument: str, text: str) -> Any:
        """Return the value of an argument that a model wrote as text, by its type in the schema.

        A text that is no value of its type stays a text.
        """
        types = _types(self._schemas.get(name), argument)
        value = _value(text)
        if types is None:
            return value
        kind = _kind(value)
        if kind in types or (kind == "integer" and "number" in types):
            return value
        return text


def _types(schema: object, argument: str) -> frozenset[str] | None:
    """Return the types that a schema allows for an argument; None if it does not say."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    found = properties.get(argument) if isinstance(properties, Mapping) else None
    return _types_of(found, depth=4)


def _types_of(schema: object, depth: int) -> frozenset[str] | None:
    if not isinstance(schema, Mapping) or not depth:
        return None
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(each for each in named if isinstance(each, str))
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(key), list):
            types = [_types_of(each, depth - 1) for each in choices]
            return None if None in types else frozenset().union(*filter(None, types))
    if isinstance(values := schema.get("enum"), list):
        return frozenset(map(_kind, values))
    return None


def _kind(value: object) -> str:
    """Return the name that JSON schemas have for the type of a value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")


def _value(text: str) -> Any:
    """Read a value as JSON, or as Python spells it; any other text is a string."""
    word = text.strip()
    if word in PYTHON:
        return PYTHON[word]
    try:
        value = json.loads(word)
        json.dumps(value, allow_nan=False)  # 1e999 is read, but cannot be written
    except (ValueError, RecursionError):
        return text
    return value
