"""DeepSeek V3 and R1; V3.1; and V3.2 and later, whose tags `invoke` reads.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add
```json
{"a": 1}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>
    <｜tool▁calls▁end｜>
"""

from swarm.dialogue.calls import object_arguments
from swarm.dialogue.events import CallBegun, Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

CALLS = "<｜tool▁calls▁begin｜>"
CALLS_END = "<｜tool▁calls▁end｜>"
CALL = "<｜tool▁call▁begin｜>"
CALL_END = "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
MARKERS = (CALLS, CALLS_END, CALL, CALL_END, SEPARATOR)
FENCE = "```json"
# What stands before a call's arguments: `SEPARATOR` in V3.1, before it `FENCE`.
CALL_OF = CALL + r"{name}\s*"
FENCED_CALL_OF = SEPARATOR + r"{name}\s*"


def deepseek(read: Reader, tools: Tools) -> Parsing[None]:
    while marker := (yield from read.until((CALLS, CALL, CALL_END, CALLS_END), Text)):
        if marker == CALL:
            yield from _call(read)


def _call(read: Reader) -> Parsing[None]:
    name, _ = yield from read.before((SEPARATOR, CALL_END))
    yield from read.skip()
    if (yield from read.peek()) != "{":  # before it was the kind of tool, and a fence follows
        name, marker = yield from read.before((FENCE, "\n", CALL_END))
        if marker == CALL_END:
            return
        if marker == "\n":
            yield from read.skip()
            yield from read.accept(FENCE)
        yield from read.skip()
    yield CallBegun(name.strip())
    yield from object_arguments(read)
    yield from read.before((CALL_END,))
