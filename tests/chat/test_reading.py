"""Questions from pipes, files and terminals."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.input.base import PipeInput
from prompt_toolkit.output import DummyOutput

from helpers.loopback import eventually, soon
from swarm.chat import reading
from swarm.chat.reading import GivenUp, MessageTooLong, NotText, Pipe, Terminal, message


async def read_all(pipe: Pipe) -> list[str]:
    said = []
    while (each := await soon(message(pipe.read))) is not None:
        said.append(each)
    return said


@contextmanager
def piped(content: bytes, end: bool = True) -> Iterator[Pipe]:
    reader, writer = os.pipe()
    os.write(writer, content)
    if end:
        os.close(writer)
    yield Pipe(reader)
    os.close(reader)
    if not end:
        os.close(writer)


async def test_every_line_of_a_pipe_is_a_message() -> None:
    with piped("one\r\ntwo ä\n\n  three".encode()) as pipe:
        assert await read_all(pipe) == ["one", "two ä", "", "  three"]


async def test_a_file_is_read_like_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "questions"
    file.write_bytes(b"one\ntwo\n")
    with file.open("rb") as opened:
        assert await read_all(Pipe(opened.fileno())) == ["one", "two"]


async def test_bytes_that_are_no_text_are_refused_and_the_next_line_is_read() -> None:
    with piped(b"one \xff\ntwo\n") as pipe:
        with pytest.raises(NotText) as caught:
            await soon(pipe.read(""))
        assert caught.value.readable == "one \ufffd"
        assert await read_all(pipe) == ["two"]
    with piped(b'"""\none\n\xff\n"""\ntwo\n') as pipe:
        with pytest.raises(NotText) as caught:
            await soon(message(pipe.read))
        assert caught.value.readable == "one\n\ufffd"
        assert await read_all(pipe) == ["two"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'"""\none\n\ntwo\n"""\nthree\n', ["one\n\ntwo", "three"]),
        (b'"""one\ntwo"""\n', ["one\ntwo"]),
        (b'"""one"""\n', ["one"]),
        (b'"""one\n', ["one"]),
        (b'say """ now\n', ['say """ now']),
    ],
)
async def test_a_block_is_one_message(content: bytes, said: list[str]) -> None:
    with piped(content) as pipe:
        assert await read_all(pipe) == said


async def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_MESSAGE_BYTES", 100)
    with piped(b"x" * 101) as pipe, pytest.raises(MessageTooLong):
        await soon(pipe.read(""))
    with (
        piped(b'"""\n' + b"x" * 60 + b"\n" + b"y" * 60 + b"\n") as pipe,
        pytest.raises(MessageTooLong),
    ):
        await soon(message(pipe.read))


async def test_whoever_waits_for_a_line_can_be_cancelled() -> None:
    with piped(b"", end=False) as pipe:
        waiting = asyncio.create_task(pipe.read(""))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


async def test_a_terminal_edits_lines_and_remembers_them_for_their_owner_only(
    keyboard: PipeInput, tmp_path: Path
) -> None:
    history = tmp_path / "home" / "history"
    terminal = Terminal(history, ["/help"])
    keyboard.send_text("ond\x01s\x05\r")  # to the beginning of the line, and to its end
    assert await soon(terminal.read("")) == "sond"
    keyboard.send_text("one\x1b\rtwo\r")  # Alt-Enter
    assert await soon(terminal.read("")) == "one\ntwo"
    reading_it = asyncio.create_task(terminal.read(""))
    keyboard.send_text("/he\t")
    await eventually(lambda: terminal._session.default_buffer.text == "/help")
    keyboard.send_text("\r")
    assert await soon(reading_it) == "/help"
    assert (history.stat().st_mode & 0o777, history.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    again = Terminal(history, [])
    keyboard.send_text(
        "\x1b[A" * 4 + "\r"
    )  # up through the three of them, one of two lines: the history is there at the next start
    assert await soon(again.read("")) == "sond"


async def test_ctrl_c_gives_up_the_line_and_ctrl_d_is_the_end(
    keyboard: PipeInput, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path / "history", [])
    keyboard.send_text("half a quest\x03")
    with pytest.raises(GivenUp):
        await soon(terminal.read(""))
    keyboard.send_text("\x04")
    assert await soon(terminal.read("")) is None


async def test_a_long_history_keeps_its_newest_half(
    keyboard: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_HISTORY_BYTES", 400)
    history = tmp_path / "history"
    history.touch(mode=0o644)
    for number in range(20):
        keyboard.send_text(f"question {number}\r")
        await soon(Terminal(history, []).read(""))
    kept = history.read_text()
    assert len(kept) < 600
    assert "+question 19" in kept
    assert "+question 0\n" not in kept
    assert all(line[:1] in "#+" for line in kept.splitlines())
    assert history.stat().st_mode & 0o777 == 0o600


async def test_where_no_history_can_be_written_there_is_none(
    keyboard: PipeInput, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    terminal = Terminal(tmp_path / "file" / "history", [])
    keyboard.send_text("hello\r")
    assert await soon(terminal.read("")) == "hello"
