"""What was asked for, or configured, cannot be."""

from dataclasses import dataclass
from typing import ClassVar

from swarm.errors.bases import UsageError


@dataclass(eq=False)
class ConfigError(UsageError):
    """The setting `field` is wrong; `problem` says why and what would be right."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}."


@dataclass(eq=False)
class RequestError(UsageError):
    """A generation cannot have `name` = `value`; `allowed` says what it can have."""

    name: str
    value: object
    allowed: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value!r} is not possible; give {self.allowed}"


@dataclass(eq=False)
class NeedsHead(UsageError):
    """`what` needs whole predictions or hidden states, and the client has no head of its own."""

    what: str

    def __str__(self) -> str:
        return (
            f"{self.what} needs the model's head on this computer, and a peer holds it; open the"
            " client with head='local' (--head local)"
        )


class SamplingError(RequestError):
    """A sampling parameter is out of its range."""


@dataclass(eq=False)
class ConstraintFailed(UsageError):
    """A constraint cannot be followed to the end of a text; `why` is the parser's reason."""

    why: str

    def __str__(self) -> str:
        return f"the constraint cannot be followed further ({self.why}); give a simpler one"


@dataclass(eq=False)
class PromptTooLong(UsageError):
    """The prompt and the new tokens exceed `limit`: the model's context, or the longest session
    that the protocol allows."""

    api_code = "context_length_exceeded"

    prompt_tokens: int
    new_tokens: int
    limit: int

    def __str__(self) -> str:
        return (
            f"the prompt has {self.prompt_tokens} tokens and {self.new_tokens} new ones are asked"
            f" for, but the model's context ends at {self.limit}; shorten the prompt or ask for"
            " fewer new tokens"
        )


@dataclass(eq=False)
class RuleError(UsageError):
    """A verification rule does not exist, or does not take a setting."""

    subject: str
    problem: str

    def __str__(self) -> str:
        return f"verification {self.subject!r} is not possible: {self.problem}"


@dataclass(eq=False)
class TemplateRefuses(UsageError):
    """The chat template of `model` cannot be applied to these messages; `why` is its own text."""

    model: str
    why: str

    def __str__(self) -> str:
        return f"the chat template of {self.model} refuses this conversation: {self.why}"


@dataclass(eq=False)
class UnsupportedArgument(UsageError):
    """An argument of ``generate`` or ``forward`` that a swarm cannot honour, or whose value it
    cannot take; `instead` says what to give."""

    MAX_SHOWN: ClassVar[int] = 60  # characters of a value: longer ones are named by their type

    name: str
    value: object
    instead: str

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > self.MAX_SHOWN or not shown.isprintable():
            shown = f"({type(self.value).__name__})"
        return f"{self.name} = {shown} is not possible: {self.instead}"


@dataclass(eq=False)
class SpanError(UsageError):
    """The layers ``[first, last)`` cannot run these layers or positions; `problem` has the numbers.

    A fault of the caller, never of the model.
    """

    first: int
    last: int
    problem: str

    def __str__(self) -> str:
        return f"The span of layers [{self.first}, {self.last}) cannot run this: {self.problem}."
