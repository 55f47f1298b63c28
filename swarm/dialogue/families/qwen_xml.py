"""Qwen3-Coder, Qwen3.5, Step and Nemotron.

<tool_call>
<function=add>
<parameter=a>
1
</parameter>
</function>
</tool_call>
"""

from swarm.dialogue.calls import TaggedCall
from swarm.dialogue.events import Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
FUNCTION = "<function="
FUNCTION_END = "</function>"
PARAMETER = "<parameter="
PARAMETER_END = "</parameter>"


def qwen_xml(read: Reader, tools: Tools) -> Parsing[None]:
    while marker := (yield from read.until((OPEN, FUNCTION), Text)):
        if marker == OPEN:
            space = yield from read.skip()
            if not (yield from read.accept(FUNCTION)):
                yield Text(marker + space)
                continue
        yield from _call(read, tools)
        space = yield from read.skip()
        if not (yield from read.accept(CLOSE)) and space:
            yield Text(space)


def _call(read: Reader, tools: Tools) -> Parsing[None]:
    name, _ = yield from read.before((">",))
    call = TaggedCall(name, tools)
    yield call.begin()
    while True:
        # a closing tag of the call alone ends it, too
        _, marker = yield from read.before((PARAMETER, FUNCTION_END, CLOSE))
        if marker != PARAMETER:
            break
        name, _ = yield from read.before((">",))
        text, end = yield from read.before((PARAMETER_END, FUNCTION_END))
        if not end:  # an argument that is cut has no value yet
            return
        if argument := call.argument(name, _without_line_ends(text)):
            yield argument
        if end == FUNCTION_END:
            break
    yield call.end()


def _without_line_ends(text: str) -> str:
    """Return a value without the newlines that belong to its tags."""
    return text.removeprefix("\n").removesuffix("\n")
