"""Answers in the shape of OpenAI's chats: as parts of a stream, and as a message."""

import json
import secrets
import string
from collections.abc import Callable, Iterable
from typing import Any

from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text

SHORT_ID_CHARS = 9  # as Mistral's chat templates have them
LETTERS = string.ascii_letters + string.digits

Fields = dict[str, Any]


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def new_short_id() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(SHORT_ID_CHARS))


class Deltas:
    """The parts of one answer in a stream.

    Attributes:
        calls: the number of calls so far.
    """

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self._new_id = new_id
        self.calls = 0

    def of(self, event: Event) -> Fields:
        """Return the ``delta`` that one event makes."""
        match event:
            case Text():
                return {"content": event.text}
            case Reasoning():
                return {"reasoning_content": event.text, "reasoning": event.text}
            case CallBegun():
                self.calls += 1
                function = {"name": event.name, "arguments": ""}
                return self._call(id=event.id or self._new_id(), type="function", function=function)
            case CallArguments():
                return self._call(function={"arguments": event.text})

    def _call(self, **fields: Any) -> Fields:
        return {"tool_calls": [{"index": self.calls - 1, **fields}]}


class FunctionDeltas(Deltas):
    """Likewise, with the call as `function_call`: OpenAI's interface before it had tools."""

    def _call(self, **fields: Any) -> Fields:
        return {"function_call": fields["function"]}


def with_function_call(message: Fields) -> Fields:
    """Return an answer of one call at most, with the call as `function_call`."""
    made = {name: value for name, value in message.items() if name != "tool_calls"}
    for call in message.get("tool_calls", ()):
        made["function_call"] = call["function"]
    return made


def message_of(events: Iterable[Event], new_id: Callable[[], str] = new_call_id) -> Fields:
    """Return an answer as a message."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Fields] = []
    for event in events:
        match event:
            case Text():
                texts.append(event.text)
            case Reasoning():
                thoughts.append(event.text)
            case CallBegun():
                function = {"name": event.name, "arguments": ""}
                number = event.id or new_id()
                calls.append({"id": number, "type": "function", "function": function})
            case CallArguments():
                calls[-1]["function"]["arguments"] += event.text
    content = "".join(texts)
    message: Fields = {"role": "assistant", "content": content, "refusal": None}
    if thoughts:
        message["reasoning_content"] = message["reasoning"] = "".join(thoughts)
    if calls:
        message["content"] = content or None
        message["tool_calls"] = calls
    return message


def object_of(text: str) -> Fields:
    """Return the arguments of a call as an object; an empty one if they are broken."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
