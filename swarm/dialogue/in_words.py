"""Tools in words, for chat templates that know none.

The words are those of Nous Research's Hermes models, which many later ones were trained on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Message = dict[str, Any]

INTRODUCTION = """\
You may call one or more functions to assist with the user's request.

You are given the functions as JSON schemas within <tools></tools>:
<tools>
{tools}
</tools>

For each call of a function, write a JSON object with its name and its arguments within \
<tool_call></tool_call>:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def tools_in_words(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """Return the messages with a description of the tools in the system prompt."""
    described = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    introduction = INTRODUCTION.format(tools=described)
    first, *others = messages
    if first["role"] not in ("system", "developer"):
        return [{"role": "system", "content": introduction}, *messages]
    content = f"{first['content']}\n\n{introduction}" if first["content"] else introduction
    return [{**first, "content": content}, *others]


def calls_in_words(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with earlier calls, and what came of them, as text.

    The results of several calls are one message of the user, since many templates refuse two.
    """
    return list(_calls_in_words(messages))


def _calls_in_words(messages: Sequence[Message]) -> Iterator[Message]:
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            continue
        if results:
            yield {"role": "user", "content": "\n".join(results)}
            results = []
        if calls := message.get("tool_calls"):
            texts = [message["content"]] if message["content"] else []
            content = "\n".join([*texts, *map(_call, calls)])
            message = {**message, "content": content}
            del message["tool_calls"]
        yield message
    if results:
        yield {"role": "user", "content": "\n".join(results)}


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    name = json.dumps(function["name"], ensure_ascii=False)
    arguments = function["arguments"] or "{}"
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
