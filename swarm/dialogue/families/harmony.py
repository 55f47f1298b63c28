"""gpt-oss: messages in channels, the thoughts among them.

<|channel|>analysis<|message|>2 numbers.<|end|><|start|>assistant<|channel|>commentary
 to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>
<|channel|>final<|message|>It is 3.<|return|>
"""

import re
from collections.abc import Callable

from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools

START = "<|start|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
MESSAGE = "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
MARKERS = (START, CHANNEL, CONSTRAIN, MESSAGE, *ENDS)
# What stands before `MESSAGE` in the header of a call, of one of any function, and of the answer.
HEADER = r"(?:[^<]|<\|(?:channel|constrain)\|>)*"
CALL_OF = rf"to=(?:functions\.)?{{name}}(?![^\s<]){HEADER}"
ANY_CALL = rf"to=[^\s<]+{HEADER}"
ANSWER = rf"<\|channel\|>final{HEADER}"
RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
THOUGHTS = "analysis"


def harmony(read: Reader, tools: Tools) -> Parsing[None]:
    while True:
        # A text without any marker is an answer without channels.
        marker = yield from read.until((CHANNEL, START, MESSAGE, *ENDS), Text)
        if not marker:
            return
        header = ""
        if marker in (CHANNEL, START):
            header, found = yield from read.before((MESSAGE,))
            if not found:
                return
        elif marker in ENDS:
            continue
        yield from _message(read, header)


def _message(read: Reader, header: str) -> Parsing[None]:
    """Read a message up to its end. The header names its channel, and who it is for."""
    channel = header.rpartition(CHANNEL)[2].strip()
    wrap: Callable[[str], Event] = Reasoning if channel.startswith(THOUGHTS) else Text
    if recipient := RECIPIENT.search(header):
        yield CallBegun(recipient[1])
        wrap = CallArguments
    marker = yield from read.until((*ENDS, START), wrap)
    if marker == START:
        read.back(START)
