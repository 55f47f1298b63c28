"""GLM 4.5 and later.

<tool_call>add
<arg_key>a</arg_key>
<arg_value>1</arg_value>
</tool_call>
"""

from swarm.dialogue.calls import TaggedCall
from swarm.dialogue.events import Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
KEY = "<arg_key>"
KEY_END = "</arg_key>"
VALUE = "<arg_value>"
VALUE_END = "</arg_value>"


def glm(read: Reader, tools: Tools) -> Parsing[None]:
    while (yield from read.until((OPEN,), Text)):
        name, marker = yield from read.before((KEY, CLOSE))
        if not marker:
            yield Text(OPEN + name)
            return
        call = TaggedCall(name, tools)
        yield call.begin()
        while marker == KEY:
            key, _ = yield from read.before((KEY_END,))
            yield from read.before((VALUE,))
            value, end = yield from read.before((VALUE_END,))
            if not end:  # an argument that is cut has no value yet
                return
            if argument := call.argument(key, value):
                yield argument
            _, marker = yield from read.before((KEY, CLOSE))
        yield call.end()
