"""The format of an answer, in the fields of several servers, as one constraint."""

import json
from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from swarm.decoding.constraint import Constraint, json_object
from swarm.gateway.errors import BadRequest
from swarm.gateway.values import Part

FORMAT, STRUCTURED = "response_format", "structured_outputs"
# Of vLLM's interface; ``structured_outputs`` holds the same without the prefix.
GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


class JsonSchema(Part):
    """A schema with a name, as OpenAI's API has it. All schemas are followed strictly."""

    name: str = ""
    description: str = ""
    strict: bool = True
    schema_: dict[str, JsonValue] = Field(alias="schema")


class ResponseFormat(Part):
    """``response_format``: text, any JSON object, or JSON that a schema allows."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, JsonValue] | None = Field(default=None, alias="schema")  # llama.cpp's

    @model_validator(mode="after")
    def _has_a_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError('the type json_schema needs a schema: {"schema": {...}}')
        return self

    @property
    def constraint(self) -> Constraint | None:
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        return json_object(FORMAT) if schema is None else _schema(schema, FORMAT)


class StructuredOutputs(Part):
    """vLLM's ``structured_outputs``, and its older fields with the prefix ``guided_``."""

    json_: dict[str, JsonValue] | str | None = Field(default=None, alias="json")
    json_object: bool = False
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None

    @property
    def constraints(self) -> list[Constraint]:
        found = []
        if self.json_ is not None:
            found.append(_schema(self.json_, f"{STRUCTURED}.json"))
        if self.json_object:
            found.append(json_object(STRUCTURED))
        if self.regex is not None:
            found.append(Constraint("regex", self.regex, f"{STRUCTURED}.regex"))
        if self.choice is not None:
            found.append(Constraint("choice", json.dumps(self.choice), f"{STRUCTURED}.choice"))
        if self.grammar is not None:
            found.append(Constraint("grammar", self.grammar, f"{STRUCTURED}.grammar"))
        return found


def guided(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a body with those of `GUIDED` moved into ``structured_outputs``.

    Raise `BadRequest` if both are there.
    """
    old = {
        name.removeprefix("guided_"): fields[name]
        for name in GUIDED
        if fields.get(name) is not None
    }
    if not old:
        return fields
    if fields.get("structured_outputs") is not None:
        problem = "this and the fields guided_... mean the same; give one"
        raise BadRequest(problem, "structured_outputs")
    rest = {name: value for name, value in fields.items() if name not in GUIDED}
    return {**rest, "structured_outputs": old}


def constraint_of(
    response_format: ResponseFormat | None, structured: StructuredOutputs | None
) -> Constraint | None:
    """Return the one constraint of an answer, if there is any.

    Raises:
        BadRequest: for several at once.
        RequestError: for what is no constraint.
    """
    found = [] if structured is None else structured.constraints
    if response_format is not None and response_format.constraint is not None:
        found.append(response_format.constraint)
    if len(found) > 1:
        name = "structured_outputs" if structured and structured.constraints else "response_format"
        raise BadRequest("an answer has one format; give one constraint", name)
    return found[0] if found else None


def _schema(schema: dict[str, JsonValue] | str, field: str) -> Constraint:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return Constraint("json_schema", text, field)
