"""Narrow a JSON schema to what its author means: listed properties, and integers that end.

Where a schema says nothing of other properties, JSON Schema allows any, and where it gives no
bound, an integer has any number of digits. Authors of schemas for answers rarely mean that, and a
small model that may goes on and on until its tokens are used up. llama.cpp, Ollama and XGrammar
read such schemas in the same way.
"""

from collections.abc import Iterator
from typing import Any

MOST = (1 << 63) - 1024  # of an integer: the largest of 64 bits that is a float, too
SAYS_OF_OTHERS = frozenset({"additionalProperties", "patternProperties", "minProperties"})
# A closed part may contradict these, or change what they mean.
COMBINING = frozenset(
    {
        *("allOf", "oneOf", "not", "if", "then", "else", "contains"),
        *("dependencies", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$recursiveRef"),
    }
)
BESIDE_PROPERTIES = frozenset({"anyOf", "$ref"})  # likewise in the same schema as properties
# Where a schema holds others: as its value, or as the values of a list or an object.
HOLDING = ("items", "additionalProperties", "anyOf", "prefixItems")
HOLDING_BY_NAME = (
    *("properties", "patternProperties", "$defs", "definitions"),
    *("dependencies", "dependentSchemas"),
)


def narrow(schema: Any) -> None:
    """Close the objects of a schema that list all their properties, and bound its integers.

    It allows nothing then that it did not before. A schema with a keyword of `COMBINING` stays as
    it is.
    """
    parts = list(_parts(schema))
    if any(map(_combines, parts)):
        return
    for part in parts:
        if _lists_all_properties(part):
            part["additionalProperties"] = False
        if _is_integer(part):
            _bound(part, "minimum", "exclusiveMinimum", -MOST)
            _bound(part, "maximum", "exclusiveMaximum", MOST)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas inside it."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield part
            waiting += [part[name] for name in HOLDING if name in part]
            named = (part[name] for name in HOLDING_BY_NAME if isinstance(part.get(name), dict))
            waiting += [each for parts in named for each in parts.values()]


def _combines(part: dict[str, Any]) -> bool:
    keys = part.keys()
    return bool(keys & COMBINING) or ("properties" in keys and bool(keys & BESIDE_PROPERTIES))


def _lists_all_properties(part: dict[str, Any]) -> bool:
    properties, required = part.get("properties"), part.get("required", [])
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and not part.keys() & SAYS_OF_OTHERS
        and all(name in properties for name in required if isinstance(name, str))
    )


def _is_integer(part: dict[str, Any]) -> bool:
    """Tell whether a schema allows integers, no other numbers, and does not list them."""
    types = part.get("type")
    allowed = types if isinstance(types, list) else [types]
    return "integer" in allowed and "number" not in allowed and not part.keys() & {"enum", "const"}


def _bound(part: dict[str, Any], name: str, exclusive: str, limit: int) -> None:
    """Set a bound that is not there, or that is wider than the limit."""
    given = part.get(name)
    is_wider = isinstance(given, int | float) and abs(given) > MOST and (given > 0) == (limit > 0)
    if is_wider or (given is None and exclusive not in part):
        part[name] = limit
