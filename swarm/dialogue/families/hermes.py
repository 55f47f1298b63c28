"""Hermes, Qwen 2.5 and 3, SmolLM3 and many others; Granite 3 has another tag and lists.

<tool_call>
{"name": "add", "arguments": {"a": 1}}
</tool_call>
"""

from swarm.dialogue.calls import json_calls
from swarm.dialogue.events import Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
GRANITE = "<|tool_call|>"


def hermes(read: Reader, tools: Tools) -> Parsing[None]:
    while marker := (yield from read.until((OPEN,), Text)):
        if (yield from json_calls(read, marker)):
            yield from _close(read)


def granite(read: Reader, tools: Tools) -> Parsing[None]:
    """Read calls as ``<|tool_call|>[{"name": "add", "arguments": {"a": 1}}]``."""
    while marker := (yield from read.until((GRANITE, OPEN), Text)):
        if (yield from json_calls(read, marker)):
            yield from _close(read)


def _close(read: Reader) -> Parsing[None]:
    """Read the closing tag, which some models leave out."""
    space = yield from read.skip()
    if not (yield from read.accept(CLOSE)) and space:
        yield Text(space)
