"""The tools of a chat, and which of them the answer has to call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from swarm.gateway.errors import BadRequest
from swarm.gateway.messages import MAX_TOOL_NAME_CHARS
from swarm.gateway.unknown import Known
from swarm.gateway.values import Part

MAX_TOOLS = 512
FUNCTION = "function"
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
# The names that protocols have for how freely a model may choose.
MODES: dict[str, Literal["none", "auto", "required"]] = {
    "none": "none",
    "auto": "auto",
    "required": "required",
    "any": "required",
    "validated": "auto",
}


class Function(Part):
    """A function as a JSON schema."""

    name: str = Field(min_length=1, max_length=MAX_TOOL_NAME_CHARS)
    description: str = ""
    parameters: dict[str, Any] = NO_PARAMETERS
    strict: bool = False


class Tool(Part):
    type: str = Field(default=FUNCTION, max_length=256)
    function: Function | None = None

    @property
    def is_function(self) -> bool:
        """Whether it is one that a model can call here; others are skipped and named."""
        return self.type == FUNCTION and self.function is not None

    def as_schema(self) -> dict[str, Any]:
        """Return it in OpenAI's form, for chat templates."""
        assert self.function is not None
        function = self.function.model_dump(include={"name", "description", "parameters"})
        return {"type": FUNCTION, "function": function}


TOOL: Known = {
    "type": None,
    "function": dict.fromkeys(Function.model_fields),
}


@dataclass(frozen=True)
class ToolChoice:
    """Which tools an answer calls.

    Attributes:
        name: the only one that it calls.
        allowed: the names of those that it may call; None: all.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None
    allowed: frozenset[str] | None = None


def read_choice(value: object) -> object:
    """Read a choice of tools as OpenAI's and Anthropic's clients write it. Raise ValueError."""
    if isinstance(value, str) and value in MODES:
        return ToolChoice(MODES[value])
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in MODES:
            return ToolChoice(MODES[kind])
        if kind in (FUNCTION, "tool"):
            return ToolChoice("required", _name(value))
        if kind == "allowed_tools":
            return _allowed(value)
    raise ValueError(
        'this has to be "none", "auto", "required", or like'
        ' {"type": "function", "function": {"name": "..."}}'
    )


def _allowed(value: dict[str, Any]) -> ToolChoice:
    inner = value.get("allowed_tools", value)
    tools = inner.get("tools") if isinstance(inner, dict) else None
    mode = inner.get("mode", "auto") if isinstance(inner, dict) else None
    if not isinstance(tools, list) or not isinstance(mode, str) or mode not in MODES:
        raise ValueError("allowed_tools has to have a mode and a list of tools")
    names = frozenset(_name(tool) for tool in tools if isinstance(tool, dict))
    return ToolChoice(MODES[mode], allowed=names)


def _name(value: dict[str, Any]) -> str:
    function = value.get(FUNCTION)
    name = function.get("name") if isinstance(function, dict) else value.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a chosen function has to have a name")
    return name


def read_function_choice(value: object) -> object:
    """Read ``function_call``, which was the name of ``tool_choice`` before. Raise ValueError."""
    if value in ("none", "auto"):
        return ToolChoice(MODES[str(value)])
    if isinstance(value, dict) and isinstance(name := value.get("name"), str) and name:
        return ToolChoice("required", name)
    raise ValueError('this has to be "none", "auto", or like {"name": "..."}')


Choice = Annotated[Any, BeforeValidator(read_choice)]
FunctionChoice = Annotated[Any, BeforeValidator(read_function_choice)]


def offered(tools: Sequence[Tool], choice: ToolChoice, field: str = "tool_choice") -> list[Tool]:
    """Return the functions that an answer may call.

    Raise `BadRequest`, which names the ``field``, for a choice that names none of them.
    """
    functions = [tool for tool in tools if tool.is_function]
    names = {tool.function.name for tool in functions if tool.function is not None}
    if choice.name is not None and choice.name not in names:
        problem = f"this names {choice.name[:MAX_TOOL_NAME_CHARS]!r}, which is not among the tools"
        raise BadRequest(problem, field)
    if choice.mode == "required" and not functions:
        raise BadRequest("this needs tools of the type function", field)
    if choice.mode == "none":
        return []
    if choice.allowed is None:
        return functions
    return [tool for tool in functions if tool.function and tool.function.name in choice.allowed]
