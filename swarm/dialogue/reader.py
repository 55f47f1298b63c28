"""Read a text that comes in pieces, cut anywhere.

A parser is a generator over a `Reader`, written as if the whole text were there. It yields events,
and None where it needs more text. What it reads must not depend on the cuts, so every method waits
until further text cannot change its result.
"""

import json
from collections.abc import Callable, Generator
from typing import TypeVar

from swarm.dialogue.events import Event

WHITESPACE = " \t\r\n"
SCALAR_ENDS = " \t\r\n,}]<["

T = TypeVar("T")
R = TypeVar("R")
Waiting = Generator[None, None, R]  # returns R, and yields None where it needs more text
Parsing = Generator[Event | None, None, R]


class Reader:
    """The text that has come and is not yet read."""

    def __init__(self) -> None:
        self._held = ""
        self._ended = False
        self._marked: list[str] | None = None

    def feed(self, text: str) -> None:
        self._held += text

    def end(self) -> None:
        """Say that no text follows."""
        self._ended = True

    def mark(self) -> None:
        """Remember what is read from here on, for `since_mark`."""
        self._marked = []

    def since_mark(self) -> str:
        """Return what was read since `mark`, and forget it."""
        marked, self._marked = self._marked or [], None
        return "".join(marked)

    def until(
        self, markers: tuple[str, ...], wrap: Callable[[str], T]
    ) -> Generator[T | None, None, str]:
        """Read up to the first marker and past it; yield the text before it piece by piece.

        Return the marker, or an empty string at the end of the text. No marker may be a part of
        another one.
        """
        while True:
            found = [(at, each) for each in markers if (at := self._held.find(each)) >= 0]
            at, marker = min(found, default=(len(self._held), ""))
            if not marker and not self._ended:
                at -= max((_overlap(self._held, each) for each in markers), default=0)
            if before := self._take(at):
                yield wrap(before)
            if marker or self._ended:
                return self._take(len(marker))
            yield None

    def before(self, markers: tuple[str, ...]) -> Waiting[tuple[str, str]]:
        """Read up to the first marker and past it; return the text before it, and the marker."""
        return (yield from gathered(self.until(markers, str)))

    def back(self, text: str) -> None:
        """Put text back that was just read."""
        self._held = text + self._held

    def accept(self, text: str) -> Waiting[bool]:
        """Read this text if it comes next, and tell whether it did."""
        while len(self._held) < len(text) and text.startswith(self._held) and not self._ended:
            yield None
        if not self._held.startswith(text):
            return False
        self._take(len(text))
        return True

    def peek(self) -> Waiting[str]:
        """Return the next character, or an empty string at the end of the text."""
        while not self._held and not self._ended:
            yield None
        return self._held[:1]

    def skip(self) -> Waiting[str]:
        """Read white space, and return it."""
        skipped = ""
        while True:
            rest = self._held.lstrip(WHITESPACE)
            skipped += self._take(len(self._held) - len(rest))
            if self._held or self._ended:
                return skipped
            yield None

    def value(self, wrap: Callable[[str], T]) -> Generator[T | None, None, bool]:
        """Read one JSON value, and yield its text piece by piece. Return whether it is complete.

        Only brackets and quotes are looked at: the value may be broken in other ways.
        """
        scan = _ValueScan()
        while True:
            end = scan.end(self._held)
            if piece := self._take(len(self._held) if end is None else end):
                yield wrap(piece)
            if end is not None:
                return True
            if self._ended:
                return scan.is_scalar
            yield None

    def json(self) -> Waiting[object]:
        """Read one JSON value, and return it. Raise ValueError if it is broken."""
        text, complete = yield from gathered(self.value(str))
        if not complete:
            raise ValueError("the text ends in a value")
        try:
            return json.loads(text, strict=False)
        except RecursionError:
            raise ValueError("a value is nested too deeply") from None

    def _take(self, chars: int) -> str:
        taken, self._held = self._held[:chars], self._held[chars:]
        if self._marked is not None:
            self._marked.append(taken)
        return taken


class _ValueScan:
    """Finds the end of a JSON value in a text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.is_scalar = False

    def end(self, text: str) -> int | None:
        """Return how many characters of the next piece belong to the value; None: all so far."""
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
                if not self._in_string and not self._depth:
                    return at + 1
            elif self.is_scalar:
                if char in SCALAR_ENDS:
                    return at
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return at + (self._depth == 0)
            elif not self._depth:
                if char in SCALAR_ENDS:
                    return at
                self.is_scalar = True
        return None


def gathered(pieces: Generator[str | None, None, R]) -> Waiting[tuple[str, R]]:
    """Return all pieces, joined, and what their generator returns."""
    texts: list[str] = []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return "".join(texts), end.value
        if piece is None:
            yield None
        else:
            texts.append(piece)


def _overlap(text: str, marker: str) -> int:
    """Return the length of the longest end of a text with which a marker begins."""
    longest = min(len(marker) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)
