"""Kimi K2.

<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": 1}
<|tool_call_end|><|tool_calls_section_end|>
"""

from swarm.dialogue.calls import OBJECT, object_arguments
from swarm.dialogue.events import CallArguments, CallBegun, Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

SECTION = "<|tool_calls_section_begin|>"
SECTION_END = "<|tool_calls_section_end|>"
CALL = "<|tool_call_begin|>"
CALL_END = "<|tool_call_end|>"
ARGUMENTS = "<|tool_call_argument_begin|>"
CALL_OF = r"functions\.{name}:\d+\s*"  # what stands before `ARGUMENTS`
MARKERS = (SECTION, SECTION_END, CALL, CALL_END, ARGUMENTS)


def kimi(read: Reader, tools: Tools) -> Parsing[None]:
    while marker := (yield from read.until((SECTION, SECTION_END, CALL, CALL_END), Text)):
        if marker == CALL:
            yield from _call(read)


def _call(read: Reader) -> Parsing[None]:
    header, marker = yield from read.before((ARGUMENTS, CALL_END))
    if not marker:
        return
    number = header.strip()
    name = number.removeprefix("functions.").rpartition(":")[0] or number
    yield CallBegun(name, number)
    if marker == CALL_END:
        yield CallArguments(OBJECT)
        return
    yield from read.skip()
    yield from object_arguments(read)
    yield from read.before((CALL_END,))
