"""The body of OpenAI's Responses, read as a chat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swarm.gateway.errors import BadRequest
from swarm.gateway.field_names import Renames, of_messages

Fields = dict[str, Any]

RENAMED = {"max_output_tokens": "max_tokens"}
NAMES: Renames = (
    *((ours, theirs) for theirs, ours in RENAMED.items()),
    (r"tools\[(\d+)\]\.function", r"tools[\1]"),
    (r"response_format(?:\.json_schema)?", "text.format"),
    ("verbosity", "text.verbosity"),
)
# Nothing is stored: these refer to what other requests left, or ask for an answer later on.
STATEFUL = ("previous_response_id", "conversation", "background", "prompt")
# of no effect: nothing is stored, no tools run here, and thoughts are told in full
WITHOUT_EFFECT = ("include", "truncation", "max_tool_calls", "stream_options")


def as_chat(fields: Mapping[str, Any]) -> tuple[Fields, list[str], Renames]:
    """Return the fields of a chat that asks for the same, and the names of skipped items.

    The third value is how errors name the fields.

    Raise `BadRequest` for what no chat here can hold, such as earlier responses.
    """
    for name in STATEFUL:
        if fields.get(name):
            problem = "nothing is stored here; send the whole conversation as input"
            raise BadRequest(problem, name, "unsupported_parameter")
    chat = {
        name: value
        for name, value in fields.items()
        if name not in ("input", "instructions", "text", *STATEFUL, *WITHOUT_EFFECT)
    }
    for theirs, ours in RENAMED.items():
        if theirs in chat:
            chat[ours] = chat.pop(theirs)
    messages: list[Any] = []
    origins = []
    if instructions := fields.get("instructions"):
        messages.append({"role": "system", "content": instructions})
        origins.append("instructions")
    items, skipped = _items(fields.get("input"))
    for index, message in _messages(items):
        messages.append(message)
        origins.append(f"input[{index}]")
    chat["messages"] = messages
    if isinstance(tools := chat.get("tools"), list):
        chat["tools"] = [_tool(tool) for tool in tools]
    if chat.pop("top_logprobs", None):
        raise BadRequest("log probabilities are told by chats alone", "top_logprobs")
    chat |= _text_options(fields.get("text"))
    return chat, skipped, [*of_messages(origins), *NAMES]


def _items(given: object) -> tuple[list[tuple[int, Fields]], list[str]]:
    """Return the input as items of known types, with their places, and the names of others."""
    if isinstance(given, str):
        return [(0, {"role": "user", "content": given})], []
    if not isinstance(given, list):
        raise BadRequest("this has to be a string or a list of items", "input")
    known: list[tuple[int, Fields]] = []
    skipped = []
    for index, item in enumerate(given):
        if not isinstance(item, dict):
            raise BadRequest("an item has to be an object", f"input[{index}]")
        kind = item.get("type", "message")
        if kind == "item_reference":
            problem = "nothing is stored here; send the item itself"
            raise BadRequest(problem, f"input[{index}]", "unsupported_parameter")
        if kind in ("message", "function_call", "function_call_output", "reasoning"):
            known.append((index, item))
        else:
            skipped.append(f"input[{index}]")
    return known, skipped


def _messages(items: Sequence[tuple[int, Fields]]) -> Iterator[tuple[int, Fields]]:
    """Yield the messages of a chat, each with the place of the first item that it is made of.

    What the assistant said in one turn becomes one message.
    """
    said: Fields = {}
    since = 0
    for index, item in items:
        kind = item.get("type", "message")
        is_answer = kind == "message" and item.get("role") == "assistant"
        begins = (kind == "reasoning" and said) or (is_answer and said.keys() - {"reasoning"})
        if said and (begins or kind == "function_call_output" or _is_from_others(item)):
            yield since, {"role": "assistant", **said}
            said = {}
        since = since if said else index
        if kind == "reasoning":
            said["reasoning"] = _thoughts(item)
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            said["tool_calls"] = [*said.get("tool_calls", ()), call]
        elif kind == "function_call_output":
            result = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
            yield index, {"role": "tool", **result}
        elif is_answer:
            said["content"] = item.get("content")
        else:
            yield index, {"role": item.get("role"), "content": item.get("content")}
    if said:
        yield since, {"role": "assistant", **said}


def _is_from_others(item: Fields) -> bool:
    return item.get("type", "message") == "message" and item.get("role") != "assistant"


def _thoughts(item: Fields) -> str:
    """Return the text of thoughts: all of it, or a summary of it."""
    for name in ("content", "summary"):
        parts = item.get(name)
        if isinstance(parts, list) and parts:
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def _tool(tool: object) -> object:
    """Return a function in the form of chats; other tools have a type that is skipped."""
    if not isinstance(tool, dict):
        return tool
    if tool.get("type") != "function":
        return {"type": tool.get("type")}
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool.get(name) for name in names}}


def _text_options(text: object) -> Fields:
    """Return the fields of a chat for ``text``: the format of the answer, and its length."""
    if not isinstance(text, dict):
        return {}
    fields: Fields = {}
    if text.get("verbosity") is not None:
        fields["verbosity"] = text["verbosity"]
    if isinstance(given := text.get("format"), dict):
        fields["response_format"] = given
        if given.get("type") == "json_schema":
            inner = {name: value for name, value in given.items() if name != "type"}
            fields["response_format"] = {"type": "json_schema", "json_schema": inner}
    return fields
