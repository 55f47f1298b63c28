"""The body of Anthropic's Messages, read as a chat."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from swarm.gateway.errors import BadRequest
from swarm.gateway.field_names import Renames, of_messages

Fields = dict[str, Any]

RENAMED = {"stop_sequences": "stop"}
NAMES: Renames = (
    ("stop", "stop_sequences"),
    (r"tools\[(\d+)\]\.function\.parameters", r"tools[\1].input_schema"),
    (r"tools\[(\d+)\]\.function", r"tools[\1]"),
    ("reasoning_effort", "output_config.effort"),
    (r"response_format(?:\.json_schema)?", "output_config.format"),
)
REFERENCE = "tool_reference"  # what a search for tools returns
SKIPPED_BLOCKS = frozenset({"redacted_thinking"})


def as_chat(fields: Mapping[str, Any]) -> tuple[Fields, Renames]:
    """Return the fields of a chat of OpenAI's that asks for the same; unknown ones stay.

    The second value is how errors name the fields.

    Raise `BadRequest` for what no chat here can hold, such as images.
    """
    chat = {name: value for name, value in fields.items() if name not in ("system", "messages")}
    for theirs, ours in RENAMED.items():
        if theirs in chat:
            chat[ours] = chat.pop(theirs)
    messages: list[Any] = []
    origins = []
    if system := _text(fields.get("system"), "system"):
        messages.append({"role": "system", "content": system})
        origins.append("system")
    given = fields.get("messages")
    for index, message in enumerate(given if isinstance(given, list) else []):
        if not isinstance(message, dict):
            raise BadRequest("a message has to be an object", f"messages[{index}]")
        messages += _messages(message, f"messages[{index}]")
        origins += [f"messages[{index}]"] * (len(messages) - len(origins))
    if messages and messages[-1].get("role") == "assistant":
        messages[-1]["prefix"] = True  # the answer goes on from there
    chat["messages"] = messages
    if isinstance(tools := chat.get("tools"), list):
        loaded = set(_references(given))
        chat["tools"] = [_tool(tool, loaded) for tool in tools]
    choice = chat.get("tool_choice")
    if isinstance(choice, dict) and choice.pop("disable_parallel_tool_use", False):
        chat["parallel_tool_calls"] = False
    if isinstance(output := chat.pop("output_config", None), dict):
        chat |= _output(output)
    return chat, [*of_messages(origins), *NAMES]


def _messages(message: Fields, where: str) -> Iterator[Fields]:
    """Yield the messages of a chat that one message becomes: results of tools are their own."""
    content = message.get("content")
    if not isinstance(content, list):
        yield dict(message)
        return
    made: Fields = {**message, "content": ""}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Fields] = []
    for index, block in enumerate(content):
        at = f"{where}.content[{index}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_string(block, "text", at))
        elif kind == "thinking":
            thoughts.append(_string(block, "thinking", at))
        elif kind == "tool_use":
            calls.append(_call(block))
        elif kind == "tool_result":
            yield {
                "role": "tool",
                "tool_call_id": block.get("tool_use_id"),
                "content": _result(block.get("content")),
            }
        elif not isinstance(kind, str) or kind not in SKIPPED_BLOCKS:
            raise BadRequest("only text, thoughts, calls and their results can be read", at)
    made["content"] = "\n".join(texts)
    if thoughts:
        made["reasoning_content"] = "\n".join(thoughts)
    if calls:
        made["tool_calls"] = calls
    if texts or thoughts or calls or not content:
        yield made


def _string(block: Mapping[str, Any], name: str, where: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise BadRequest("this has to be a string", f"{where}.{name}")
    return text


def _text(content: object, where: str) -> str:
    """Return content as text: a string, or blocks of text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest("this has to be a string or a list of text blocks", where)
    texts = []
    for index, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise BadRequest("only blocks of text can be read", f"{where}[{index}]")
        texts.append(_string(block, "text", f"{where}[{index}]"))
    return "\n".join(texts)


def _result(content: object) -> object:
    """Return the result of a tool for a chat: references to tools become text."""
    if not isinstance(content, list):
        return content
    return [_reference(part) if _is_reference(part) else part for part in content]


def _reference(part: Fields) -> Fields:
    return {"type": "text", "text": f"The tool {part.get('tool_name')} can be called now."}


def _references(messages: object) -> Iterator[str]:
    """Yield the names of tools to which results of tools refer: from then on a model has them."""
    for message in _objects(messages):
        for block in _objects(message.get("content")):
            if block.get("type") == "tool_result":
                parts = _objects(block.get("content"))
                yield from (str(part.get("tool_name")) for part in parts if _is_reference(part))


def _is_reference(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == REFERENCE


def _objects(given: object) -> list[Fields]:
    """Return the objects of a list; none if it is no list."""
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _call(block: Mapping[str, Any]) -> Fields:
    function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool(tool: object, loaded: Collection[str]) -> object:
    """Return a tool in OpenAI's form; those of Anthropic's servers have a type of their own.

    A deferred one that is not ``loaded`` yet is like a tool of an unknown type, which is skipped.
    """
    if not isinstance(tool, dict):
        return tool
    if tool.get("defer_loading") is True and tool.get("name") not in loaded:
        return {"type": "deferred"}
    if tool.get("type", "custom") != "custom":
        return {"type": tool["type"]}
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
        "strict": tool.get("strict"),
    }
    return {"type": "function", "function": function}


def _output(config: Fields) -> Fields:
    """Return the fields of a chat for ``output_config``; what is unknown of it stays."""
    fields: Fields = {}
    if isinstance(effort := config.pop("effort", None), str):
        fields["reasoning_effort"] = effort
    if isinstance(given := config.pop("format", None), dict):
        schema = {"schema": given.get("schema")}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**fields, "output_config": config}
