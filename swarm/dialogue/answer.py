"""Take an answer apart as it comes: thoughts, text, calls of tools."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text
from swarm.dialogue.formats import ToolFormat, thoughts
from swarm.dialogue.reader import WHITESPACE, Parsing, Reader
from swarm.dialogue.tools import Tools


@dataclass(frozen=True)
class AnswerForm:
    """What an answer may consist of.

    Attributes:
        format: how calls are written; None if there are no calls, nor channels.
        tags: of thoughts, if the model has such.
        tools: that may be called; None takes calls for text.
        parallel: several calls are allowed; otherwise those after the first are dropped.
    """

    format: ToolFormat | None = None
    tags: tuple[str, str] | None = None
    tools: Tools | None = None
    parallel: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether an answer is nothing but its text."""
        return self.tags is None and not self._parses

    @property
    def markers(self) -> tuple[str, ...]:
        """The special tokens whose text has to be part of the answer's."""
        own = self.format.markers if self.format is not None and self._parses else ()
        return (*own, *(self.tags or ()))

    def opened_by(self, prompt: str) -> bool:
        """Tell whether a prompt that ends so has opened the thoughts."""
        return self.tags is not None and prompt.rstrip().endswith(self.tags[0])

    def ended_by(self, prompt: str) -> bool:
        """Tell whether a prompt that ends so has ended the thoughts, perhaps before any."""
        return self.tags is not None and prompt.rstrip().endswith(self.tags[1])

    def parse(self, read: Reader, begun: bool) -> Parsing[None]:
        """Read an answer. ``begun``: the prompt has opened the thoughts."""
        if self.tags is not None:
            yield from thoughts(read, self.tags, begun)
        if self.format is not None and self._parses:
            yield from self.format.parse(read, self.tools or Tools())
        yield from read.until((), Text)

    @property
    def _parses(self) -> bool:
        return self.format is not None and (self.tools is not None or self.format.has_channels)


class AnswerParser:
    """Turns the text of an answer, which comes in pieces, into events.

    All cuts give the same calls, thoughts and text. White space between them is dropped.

    Args:
        begun: the prompt has opened the thoughts.
    """

    def __init__(self, form: AnswerForm, begun: bool = False) -> None:
        self._read = Reader()
        self._events = form.parse(self._read, begun)
        self._space = None if form.is_plain else _Space()
        self._calls = 0
        self._most_calls = math.inf if form.parallel else 1

    def push(self, text: str) -> list[Event]:
        """Return the events that became certain with this text."""
        self._read.feed(text)
        return list(self._certain())

    def end(self) -> list[Event]:
        """Return the events that were held back, at the end."""
        self._read.end()
        events = list(self._certain())
        return events + (self._space.end() if self._space else [])

    def _certain(self) -> Iterator[Event]:
        for event in self._events:
            if event is None:
                return
            self._calls += isinstance(event, CallBegun)
            if self._calls > self._most_calls and isinstance(event, CallBegun | CallArguments):
                continue
            if self._space is None:
                yield event
            else:
                yield from self._space.pass_on(event)


class _Space:
    """Drops the white space between thoughts, text and calls."""

    def __init__(self) -> None:
        self._kind: type[Event] | None = None
        self._begun = True  # text of this kind; white space at the beginning of all is kept
        self._held = ""
        self._calls = False

    def pass_on(self, event: Event) -> Iterator[Event]:
        if isinstance(event, CallBegun | CallArguments):
            self._calls = True
            self._kind = CallBegun
            self._held = ""
            yield event
            return
        kind = type(event)
        if kind is not self._kind:
            self._begun = self._kind is None and kind is Text
            self._held = ""
        self._kind = kind
        text = self._held + event.text
        if not self._begun:
            text = text.lstrip(WHITESPACE)
        shown = text.rstrip(WHITESPACE)
        self._held = text[len(shown) :]
        if shown:
            self._begun = True
            yield kind(shown)

    def end(self) -> list[Event]:
        """Return the white space at the end of a text without calls."""
        if self._held and self._kind is Text and not self._calls:
            return [Text(self._held)]
        return []


def answer_of(form: AnswerForm, text: str, begun: bool = False) -> list[Event]:
    """Return the events of a whole answer, neighbours of one kind joined."""
    parser = AnswerParser(form, begun)
    return joined([*parser.push(text), *parser.end()])


def joined(events: list[Event]) -> list[Event]:
    """Return the events with neighbours of one kind joined."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Text) and isinstance(last, Text):
            merged[-1] = Text(last.text + event.text)
        elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
            merged[-1] = Reasoning(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments):
            merged[-1] = CallArguments(last.text + event.text)
        else:
            merged.append(event)
    return merged
