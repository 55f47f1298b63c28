"""Mistral: older models write a list, later ones a name and its arguments.

[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]
[TOOL_CALLS]add[ARGS]{"a": 1}
[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}
"""

from swarm.dialogue.calls import json_calls, object_arguments
from swarm.dialogue.events import CallBegun, Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

CALLS = "[TOOL_CALLS]"
ARGUMENTS = "[ARGS]"
ID = "[CALL_ID]"
CALL_OF = r"\[TOOL_CALLS\]\s*{name}(?:\[CALL_ID\]\w*)?\s*"  # what stands before `ARGUMENTS`


def mistral(read: Reader, tools: Tools) -> Parsing[None]:
    marker = yield from read.until((CALLS,), Text)
    while marker:
        yield from read.skip()
        if (yield from read.peek()) in ("[", "{", ""):
            yield from json_calls(read, marker)
        else:
            yield from _call(read)
        marker = yield from read.until((CALLS,), Text)


def _call(read: Reader) -> Parsing[None]:
    name, marker = yield from read.before((ARGUMENTS, ID, "{"))
    name, number = name.strip(), ""
    if marker == ID:
        number, marker = yield from read.before((ARGUMENTS, "{"))
    if not marker:
        yield Text(CALLS + name)
        return
    yield CallBegun(name, number.strip())
    if marker == "{":
        read.back(marker)
    yield from read.skip()
    yield from object_arguments(read)
