"""MiniMax M2, and DeepSeek V3.2 and later, whose tags have a prefix.

<minimax:tool_call>
<invoke name="add">
<parameter name="a">1</parameter>
</invoke>
</minimax:tool_call>

<｜DSML｜function_calls>
<｜DSML｜invoke name="add">
<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜function_calls>
"""

from dataclasses import dataclass

from swarm.dialogue.calls import TaggedCall
from swarm.dialogue.events import Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

DSML = "｜DSML｜"


@dataclass(frozen=True)
class Tags:
    """The tags of a family: what surrounds all calls, and the prefix of all other tags."""

    outer: str
    prefix: str = ""

    @property
    def open(self) -> str:
        return f"<{self.outer}>"

    @property
    def close(self) -> str:
        return f"</{self.outer}>"

    def begin(self, tag: str) -> str:
        return f"<{self.prefix}{tag} name="

    def end(self, tag: str) -> str:
        return f"</{self.prefix}{tag}>"


MINIMAX = Tags("minimax:tool_call")
DEEPSEEK = Tags(f"{DSML}function_calls", DSML)


def minimax(read: Reader, tools: Tools) -> Parsing[None]:
    yield from _calls(read, tools, MINIMAX)


def deepseek_tags(read: Reader, tools: Tools) -> Parsing[None]:
    yield from _calls(read, tools, DEEPSEEK)


def _calls(read: Reader, tools: Tools, tags: Tags) -> Parsing[None]:
    while (yield from read.until((tags.open,), Text)):
        while True:
            _, marker = yield from read.before((tags.begin("invoke"), tags.close))
            if marker != tags.begin("invoke"):
                break
            yield from _call(read, tools, tags)


def _call(read: Reader, tools: Tools, tags: Tags) -> Parsing[None]:
    call = TaggedCall((yield from _name(read)), tools)
    yield call.begin()
    parameter, end = tags.begin("parameter"), tags.end("parameter")
    while True:
        _, marker = yield from read.before((parameter, tags.end("invoke")))
        if marker != parameter:
            break
        name = yield from _name(read)
        text, closed = yield from read.before((end,))
        if not closed:  # an argument that is cut has no value yet
            return
        if argument := call.argument(name, text):
            yield argument
    yield call.end()


def _name(read: Reader) -> Parsing[str]:
    """Read the rest of an opening tag, and return the name in quotes that it begins with."""
    text, _ = yield from read.before((">",))
    quote = text[:1]
    if quote in ('"', "'"):
        return text[1:].partition(quote)[0]
    return text.strip()
