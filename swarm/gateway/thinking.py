"""How much a model is to think before it answers: the fields of many servers, for one template.

Templates have variables for that, under few names. What they do not read has no effect.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from swarm.gateway.values import Part

MAX_VARIABLES = 64  # of a chat template
OFF = "none"  # the effort of a model that does not think at all
SWITCHES = ("enable_thinking", "thinking")  # of Qwen, GLM and others; of DeepSeek and Granite
EFFORT = "reasoning_effort"

Effort = Annotated[str, Field(min_length=1, max_length=32)]


class Thinking(Part):
    """``thinking``, as Anthropic and GLM have it."""

    type: str = Field(default="enabled", max_length=32)
    budget_tokens: int | None = None

    @property
    def switch(self) -> bool | None:
        """Whether to think; None leaves it to the model."""
        return None if self.type == "adaptive" else self.type != "disabled"


class ReasoningField(Part):
    """``reasoning``, as OpenRouter and OpenAI's Responses have it."""

    effort: Effort | None = None
    enabled: bool | None = None
    summary: str | None = None  # thoughts are told in full
    exclude: bool = False

    @property
    def switch(self) -> bool | None:
        return self.enabled


def as_thinking(value: object) -> object:
    """Read true and false as the types that they stand for."""
    if isinstance(value, bool):
        return {"type": "enabled" if value else "disabled"}
    return value


def thinking_variables(switches: Iterable[bool | None], effort: str | None) -> dict[str, Any]:
    """Return the variables for a chat template.

    Args:
        switches: whether to think, as far as fields say so; the last one counts.
        effort: any word; `OFF` stands for no thoughts.
    """
    said = [switch for switch in switches if switch is not None]
    variables: dict[str, Any] = {}
    if effort is not None:
        variables |= dict.fromkeys(SWITCHES, effort != OFF)
        variables[EFFORT] = effort
    if said:
        variables |= dict.fromkeys(SWITCHES, said[-1])
    return variables
