"""Read the questions of a chat: from a terminal with line editing, or from standard input."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent

from swarm.errors import UsageError

ASK = "> "
GO_ON = "... "
BLOCK = '"""'
MAX_MESSAGE_BYTES = 4 << 20  # more than any model's context
MAX_HISTORY_BYTES = 1 << 20
READ_BYTES = 1 << 16

# reads a line after this prompt; returns None at the end of the input
Read = Callable[[str], Awaitable[str | None]]


class MessageTooLong(UsageError):
    """A message of more than `MAX_MESSAGE_BYTES`."""

    def __str__(self) -> str:
        return f"a message has more than {MAX_MESSAGE_BYTES} bytes; give a shorter one"


@dataclass(eq=False)
class NotText(UsageError):
    """A message with bytes that are not text; `readable` has replacement characters for them."""

    readable: str

    def __str__(self) -> str:
        return "the message holds bytes that are not text; give it as UTF-8"


class GivenUp(Exception):
    """The user dropped the line by Ctrl-C. (KeyboardInterrupt would end the event loop.)"""


async def message(read: Read) -> str | None:
    """Return the next line, or a block between triple quotes; None at the end of the input.

    Raise `GivenUp`, `NotText` and `MessageTooLong`.
    """
    unreadable = False

    async def line_of(prompt: str) -> str | None:
        nonlocal unreadable
        try:
            return await read(prompt)
        except NotText as error:  # its block is read to the end, and refused as a whole
            unreadable = True
            return error.readable

    line = await line_of(ASK)
    if line is not None and line.startswith(BLOCK):
        lines = [line.removeprefix(BLOCK)]
        while not lines[-1].endswith(BLOCK) and (more := await line_of(GO_ON)) is not None:
            lines.append(more.rstrip())
            if sum(map(len, lines)) > MAX_MESSAGE_BYTES:
                raise MessageTooLong
        line = "\n".join(lines).removesuffix(BLOCK).strip("\n")
    if unreadable:
        raise NotText(line or "")
    return line


class Terminal:
    """Reads lines from a person, with editing, a history and completion.

    Args:
        history: a file that only its owner can read.
        words: that are completed.
    """

    def __init__(self, history: Path, words: Sequence[str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation=GO_ON,
            interrupt_exception=GivenUp,
        )

    async def read(self, prompt: str) -> str | None:
        """Read a line. Raise `GivenUp` at Ctrl-C, and `NotText`."""
        try:
            # prompt_toolkit binds Ctrl-C as a key
            line = await self._session.prompt_async(prompt, handle_sigint=False)
        except EOFError:
            return None
        if (readable := _without_surrogates(line)) != line:
            raise NotText(readable)
        return line


class Pipe:
    """Reads lines of a file descriptor without a prompt, and without a thread, which never ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unread = b""
        self._ended = False

    async def read(self, _: str) -> str | None:
        """Read a line. Raise `NotText` and `MessageTooLong`."""
        while b"\n" not in self._unread and not self._ended:
            if len(self._unread) > MAX_MESSAGE_BYTES:
                raise MessageTooLong
            await self._readable()
            more = os.read(self._descriptor, READ_BYTES)
            self._unread += more
            self._ended = not more
        if not self._unread:
            return None
        line, _newline, self._unread = self._unread.partition(b"\n")
        try:
            return line.decode().removesuffix("\r")
        except UnicodeDecodeError:
            raise NotText(line.decode(errors="replace")) from None

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:  # a regular file is always readable, and epoll refuses it
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class _Lines(FileHistory):
    """prompt_toolkit's file, which also takes questions with bytes that are not text."""

    def store_string(self, string: str) -> None:
        super().store_string(_without_surrogates(string))


def _history(path: Path) -> History:
    """Return the history in this file, made if missing, or one in memory if that fails."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            os.fchmod(file.fileno(), 0o600)
            if (nbytes := file.seek(0, os.SEEK_END)) > MAX_HISTORY_BYTES:
                file.seek(nbytes - MAX_HISTORY_BYTES // 2)
                newest = file.read()
                file.seek(0)
                file.truncate()
                file.write(newest[newest.find(b"\n\n") + 1 :])  # beginning with a whole entry
    except OSError:
        return InMemoryHistory()
    return _Lines(str(path))


def _without_surrogates(text: str) -> str:
    """Replace the lone surrogates that a terminal of another encoding leaves."""
    return text.encode("utf-8", "replace").decode()
