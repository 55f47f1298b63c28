"""Bodies of Ollama's interface, read as chats and completions."""

import json
from collections.abc import Mapping
from typing import Any

from swarm.gateway.errors import BadRequest
from swarm.gateway.field_names import Renames

Fields = dict[str, Any]

TAG = ":latest"  # that Ollama's clients add to the name of a model
# options by the names that they have here; others are ignored, and named
SAME = ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty")
OPTIONS = {
    **{name: name for name in (*SAME, "frequency_penalty", "typical_p", "mirostat")},
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
}

NAMES: Renames = (
    *((ours, f"options.{theirs}") for theirs, ours in OPTIONS.items()),
    (r"response_format(?:\.json_schema)?", "format"),
    ("reasoning_effort|enable_thinking", "think"),
)


def model_of(fields: Mapping[str, Any]) -> object:
    """Return the name of the model, without the tag of the newest version."""
    name = fields.get("model") or fields.get("name")
    return name.removesuffix(TAG) if isinstance(name, str) else name


def as_chat(fields: Mapping[str, Any]) -> tuple[Fields, list[str]]:
    """Return the fields of a chat that asks for the same, and the names of ignored ones."""
    chat, ignored = _common(fields, {"messages", "tools"})
    messages = fields.get("messages")
    if isinstance(messages, list):
        messages = [_message(each, f"messages[{at}]") for at, each in enumerate(messages)]
    chat["messages"] = messages
    if fields.get("tools"):
        chat["tools"] = fields["tools"]
    return chat, ignored


def as_generation(fields: Mapping[str, Any]) -> tuple[Fields, list[str]]:
    """Return the fields of a chat of one question, or of a completion.

    A completion has ``raw``, or a ``suffix`` that follows the text.
    """
    known = {"prompt", "system", "raw"}
    asked, ignored = _common(fields, known)
    prompt = fields.get("prompt") or ""
    if fields.get("images"):
        raise BadRequest("only text can be read", "images", "unsupported_parameter")
    suffix, system = fields.get("suffix"), fields.get("system")
    if suffix or fields.get("raw"):
        for name in ("reasoning_effort", "enable_thinking"):
            asked.pop(name, None)
        if system:
            ignored.append("system")
        return {**asked, "prompt": prompt, "suffix": suffix}, ignored
    messages = [{"role": "system", "content": system}] if system else []
    asked["messages"] = [*messages, {"role": "user", "content": prompt}]
    return asked, ignored


def _common(fields: Mapping[str, Any], known: set[str]) -> tuple[Fields, list[str]]:
    """Return the fields that chats and completions have in common."""
    asked: Fields = {"model": model_of(fields), "stream": fields.get("stream", True)}
    read = {"model", "name", "stream", "options", "format", "think", "images", "suffix", *known}
    ignored = [name for name, value in fields.items() if name not in read and value]
    options = fields.get("options") or {}
    if not isinstance(options, dict):
        raise BadRequest("this has to be an object", "options")
    for name, value in options.items():
        if name not in OPTIONS:
            ignored.append(f"options.{name}")
        elif name == "num_predict" and isinstance(value, int) and value < 0:
            continue  # no limit
        else:
            asked[OPTIONS[name]] = value
    asked |= _format(fields.get("format"))
    think = fields.get("think")
    if isinstance(think, str):
        asked["reasoning_effort"] = think
    elif think is not None:
        asked["enable_thinking"] = think
    return asked, ignored


def _format(given: object) -> Fields:
    if isinstance(given, dict):
        schema = {"schema": given}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if not given:
        return {}
    if given != "json":
        raise BadRequest('this has to be "json" or a JSON schema', "format")
    return {"response_format": {"type": "json_object"}}


def _message(message: object, where: str) -> object:
    """Return a message in OpenAI's form: calls have a type, and arguments are JSON."""
    if not isinstance(message, dict):
        return message
    if message.get("images"):
        raise BadRequest("only text can be read", f"{where}.images", "unsupported_parameter")
    made = {name: message[name] for name in ("role", "content") if name in message}
    if message.get("thinking"):
        made["reasoning_content"] = message["thinking"]
    if message.get("tool_name") or message.get("name"):
        made["name"] = message.get("tool_name") or message.get("name")
    if isinstance(calls := message.get("tool_calls"), list):
        made["tool_calls"] = [_call(call) for call in calls]
    return made


def _call(call: object) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = json.dumps(function.get("arguments") or {})
    return {"type": "function", "function": {"name": function.get("name"), "arguments": arguments}}
