"""Make an answer call a tool: by how it begins, and by what may follow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.client.grammar import LAYOUT_KEY
from swarm.decoding.constraint import Constraint
from swarm.dialogue.formats import ToolFormat
from swarm.gateway.errors import BadRequest
from swarm.gateway.tools import ToolChoice

Schema = dict[str, Any]
# The white space that a schema leaves open is that of `json.dumps`, which models were trained on.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
DEFINITIONS = ("$defs", "definitions")  # to which references of a schema point, from its root


@dataclass(frozen=True)
class ForcedCall:
    """A call that an answer begins with.

    Attributes:
        opening: the text with which the answer is begun for the model.
        constraint: of what follows: the call's arguments are always what their schema allows.
            None where arguments are not written as JSON.
    """

    opening: str = ""
    constraint: Constraint | None = None


FREE = ForcedCall()


def forced_call(
    choice: ToolChoice, tools: Sequence[Mapping[str, Any]], form: ToolFormat
) -> ForcedCall:
    """Return how an answer is made to call one of some tools, in a model's form of calls.

    Args:
        tools: in OpenAI's form.

    Raises:
        BadRequest: if this form leaves no way to do so.
    """
    if choice.mode != "required":
        return FREE
    functions = [tool["function"] for tool in tools]
    if choice.name is not None:
        functions = [each for each in functions if each["name"] == choice.name]
    if form.object_key:
        return ForcedCall(form.opening, calls_schema(functions, form.object_key))
    if form.named and len(functions) == 1:
        opening = form.named.format(name=functions[0]["name"])
        constraint = arguments_schema(functions[0]) if form.named_json else None
        return ForcedCall(opening, constraint)
    if form.opening and choice.name is None:
        return ForcedCall(form.opening)
    raise BadRequest(
        "this model's form of calls leaves no way to choose a tool; use auto",
        "tool_choice",
        "unsupported_parameter",
    )


def calls_schema(
    functions: Sequence[Mapping[str, Any]], key: str, as_list: bool = False
) -> Constraint:
    """Return the constraint of a call of one of some functions as an object, or of a list of such.

    Args:
        functions: in OpenAI's form; those without ``parameters`` take any object.
        key: of the arguments.
    """
    definitions: dict[str, Schema] = {name: {} for name in DEFINITIONS}
    calls = [_call(function, key, definitions) for function in functions]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if as_list:
        schema = {"type": "array", "items": schema, "minItems": 1}
    held = {name: each for name, each in definitions.items() if each}
    return Constraint("json_schema", json.dumps({**schema, **held, LAYOUT_KEY: LAYOUT}), "tools")


def arguments_schema(function: Mapping[str, Any]) -> Constraint:
    """Return the constraint of the arguments of a function."""
    schema = {**function["parameters"], LAYOUT_KEY: LAYOUT}
    return Constraint("json_schema", json.dumps(schema), "tools")


def _call(function: Mapping[str, Any], key: str, definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a call, with no arguments but those of the function's schema.

    Definitions move to the root, where references find them. If another function has a definition
    of the same name, the arguments are any object.
    """
    arguments = dict(function.get("parameters", {"type": "object"}))
    for name in DEFINITIONS:
        held = arguments.pop(name, {})
        root = definitions[name]
        if not isinstance(held, dict) or _conflict(held, root):
            arguments = {"type": "object"}
            break
        root.update(held)
    if "properties" in arguments:
        arguments.setdefault("additionalProperties", False)
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, key: arguments},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _conflict(one: Schema, other: Schema) -> bool:
    return any(other.get(name, schema) != schema for name, schema in one.items())
