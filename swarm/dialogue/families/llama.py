"""Llama 3: the whole answer is a call, or several, with semicolons between them.

{"name": "add", "parameters": {"a": 1}}
"""

from swarm.dialogue.calls import json_calls
from swarm.dialogue.events import Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

TAG = "<|python_tag|>"


def llama(read: Reader, tools: Tools) -> Parsing[None]:
    space = yield from read.skip()
    if space and (yield from read.peek()) not in ("{", "<"):
        yield Text(space)
    tagged = yield from read.accept(TAG)
    while True:
        if (yield from read.peek()) == "{":
            # An answer may be an object, too: only the name of a tool makes it a call.
            yield from json_calls(read, "", tools.names)
            space = yield from read.skip()
            if (yield from read.accept(";")):
                yield from read.skip()
                continue
            if (yield from read.peek()) == "{":
                continue
            if space:
                yield Text(space)
        elif tagged:
            yield Text(TAG)
        tagged = bool((yield from read.until((TAG,), Text)))
        if not tagged:
            return
        yield from read.skip()
