"""The messages of a chat, as OpenAI's clients and those of its imitators send them."""

import json
from collections import deque
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from swarm.client.conversation import Message
from swarm.gateway.unknown import Known
from swarm.gateway.values import Part

MAX_TOOL_NAME_CHARS = 256
MAX_TYPE_CHARS = 64  # of a part that is no text
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def _text(value: object) -> object:
    """Read a message's content, whose parts are joined by newlines."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return value
    return "\n".join(map(_text_of_part, value))


def _text_of_part(part: object) -> str:
    if isinstance(part, str):
        return part
    text = None
    if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind in TEXT_PARTS:
        text = part.get(TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise ValueError('content parts have to be like {"type": "text", "text": "..."}')
    return text


def _as_text(content: object) -> object:
    """Return a tool's result with a remark in place of each part that is no text.

    The model may call a tool that returns a picture. Refused, it would end the conversation for
    good, since all later requests hold it.
    """
    if not isinstance(content, list):
        return content
    return [_remark(part) if _is_other(part) else part for part in content]


def _is_other(part: object) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind not in TEXT_PARTS


def _remark(part: dict[str, Any]) -> str:
    return f"[{part['type'][:MAX_TYPE_CHARS]}: this model reads text only]"


def _arguments(value: object) -> object:
    """Read a call's arguments, which some clients send as an object and others as its JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


Text = Annotated[str, BeforeValidator(_text)]


class CalledFunction(Part):
    name: str = Field(min_length=1, max_length=MAX_TOOL_NAME_CHARS)
    arguments: Annotated[str, BeforeValidator(_arguments)] = ""  # as JSON


class ToolCall(Part):
    """A call that an earlier answer made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Part):
    """One message of a chat.

    Attributes:
        reasoning: what the model thought before this answer of its own.
        prefix: the answer is to begin with this last message of the assistant.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text = ""
    reasoning: Text = Field(
        default="", validation_alias=AliasChoices("reasoning", "reasoning_content")
    )
    tool_calls: list[ToolCall] = Field(default=[])
    function_call: CalledFunction | None = None
    tool_call_id: str = ""
    name: str = ""
    prefix: bool = Field(default=False, validation_alias=AliasChoices("prefix", "partial"))

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, fields: Any) -> Any:
        """Drop empty fields, which answers sent back as messages have."""
        if not isinstance(fields, dict):
            return fields
        if fields.get("role") in ("tool", "function"):
            fields = {**fields, "content": _as_text(fields.get("content"))}
        return {key: value for key, value in fields.items() if value not in (None, [], "")}

    @model_validator(mode="after")
    def _fits_its_role(self) -> "ChatMessage":
        if self.role != "assistant" and (self.tool_calls or self.function_call or self.prefix):
            raise ValueError("only messages of the assistant have calls or a prefix")
        return self

    @property
    def nbytes(self) -> int:
        """The size of its texts."""
        calls = [call.function for call in self.tool_calls]
        texts = [self.content, self.reasoning, *(call.arguments for call in calls)]
        return sum(len(text.encode("utf-8", "replace")) for text in texts)

    def as_message(self) -> Message:
        """Return the message for a chat template."""
        message = Message(role=self.role, content=self.content)
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        calls = [call.model_dump() for call in self.tool_calls]
        if self.function_call is not None:  # the older form of a call, which has no id
            calls.append({"type": "function", "function": self.function_call.model_dump()})
        if calls:
            message["tool_calls"] = calls
        if self.role in ("tool", "function"):
            message["role"] = "tool"
            message["tool_call_id"] = self.tool_call_id
            message["name"] = self.name
        return message


def with_call_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages for a chat template, in which all calls have an id, and their results, too.

    Functions of OpenAI's older interface have none, nor have Ollama's tools. Results are matched to
    calls in their order.
    """
    count = 0
    unanswered: deque[str] = deque()
    numbered = []
    for message in messages:
        made = dict(message)
        if "tool_calls" in made:
            made["tool_calls"] = [dict(call) for call in made["tool_calls"]]
            for call in made["tool_calls"]:
                count += 1
                if not call.get("id"):
                    call["id"] = f"call{count:05}"  # nine characters, as Mistral's templates want
                    unanswered.append(call["id"])
        elif made["role"] == "tool" and not made["tool_call_id"] and unanswered:
            made["tool_call_id"] = unanswered.popleft()
        numbered.append(made)
    return numbered


_CALL: Known = {"name": None, "arguments": None}
MESSAGE: Known = {
    **dict.fromkeys(("role", "name", "tool_call_id", "prefix", "partial")),
    **dict.fromkeys(("reasoning", "reasoning_content", "refusal", "annotations", "audio")),
    "content": dict.fromkeys(("type", "text", "refusal")),
    "tool_calls": {"id": None, "type": None, "index": None, "function": _CALL},
    "function_call": _CALL,
}
