"""What an answer has to look like: a JSON schema, a regular expression, a grammar, or a choice."""

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

from swarm.errors import RequestError

Kind = Literal["json_schema", "regex", "grammar", "choice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_CHARS = 256 << 10  # of a constraint: compiling takes time and memory
MAX_CHOICES = 1024
ANY_OBJECT = '{"type": "object"}'


@dataclass(frozen=True)
class Constraint:
    """A language that an answer has to be in, beginning with its first token.

    Attributes:
        kind: of ``text``: a JSON schema (https://json-schema.org), a regular expression (of Rust's
            ``regex``), a context-free grammar (of Lark), or a JSON list of strings to choose from.
        field: by which errors name it; by default its kind.

    Raises:
        RequestError: for a text that is too long, or no text of its kind as far as JSON tells.
    """

    kind: Kind
    text: str
    field: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError("constraint", self.kind, f"one of {', '.join(KINDS)}")
        if not 0 < len(self.text) <= MAX_CHARS:
            allowed = f"1 to {MAX_CHARS} characters"
            raise RequestError(self.name, f"{len(self.text)} characters", allowed)
        if self.kind == "json_schema":
            if not isinstance(_json(self.name, self.text), (dict, bool)):
                raise RequestError(self.name, self.text[:50], "a JSON object, the schema")
        elif self.kind == "choice":
            choices = _json(self.name, self.text)
            listed = choices if isinstance(choices, list) else []
            if not 0 < len(listed) <= MAX_CHOICES or not all(map(_is_choice, listed)):
                allowed = f"a list of 1 to {MAX_CHOICES} strings, none of them empty"
                raise RequestError(self.name, self.text[:50], allowed)

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.field or self.kind


def json_object(field: str = "") -> Constraint:
    """Return the constraint of any JSON object."""
    return Constraint("json_schema", ANY_OBJECT, field)


def _is_choice(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _json(kind: str, text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(kind, text[:50], f"JSON ({str(error)[:100]})") from None
    return parsed
