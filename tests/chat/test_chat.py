"""A chat over a real swarm: what the conversation keeps, and what errors and Ctrl-C end."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.loopback import eventually, soon
from helpers.swarm_in_process import NEW, STAGES, Swarm, swarm_of
from swarm.chat.chat import ChatAnswer, ChatState
from swarm.chat.display import JsonDisplay, figures
from swarm.chat.orders import ORDERS
from swarm.chat.reading import NotText, Pipe
from swarm.chat.talk import talk
from swarm.client.conversation import Message, Turn
from swarm.errors import ExitCode
from swarm.outputs import Piece
from swarm.request import Options


def render(messages: Sequence[Message]) -> list[int]:
    """Turn messages into token ids: words of the tiny model, by number."""
    return [
        int(number) % 97
        for message in messages
        for number in re.findall(r"w(\d+)", message["content"])
    ]


@dataclass
class Page:
    """A display that records everything."""

    answers: list[ChatAnswer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    on_piece: Callable[[], Any] = lambda: None

    def waiting_for(self, what: str) -> None:
        pass

    def begins(self, prompt: Sequence[int]) -> None:
        pass

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.on_piece()

    def ended(self, answer: ChatAnswer) -> None:
        self.answers.append(answer)

    def note(self, text: str) -> None:
        self.notes.append(text)


def chat_of(swarm: Swarm, page: Page, context_tokens: int = 512, **options: Any) -> ChatState:
    asked: Any = {"max_new_tokens": NEW, "keep": True, **options}
    return ChatState(swarm, render, page, context_tokens, Options(**asked))


async def say(chat: ChatState, *lines: str) -> None:
    """Enter these lines, and end the input."""
    unsaid = [*lines]

    async def read(_: str) -> str | None:
        return unsaid.pop(0) if unsaid else None

    await soon(talk(chat, read))


async def test_answers_become_the_conversation_and_can_be_taken_back(
    make: Callable[[], Swarm],
) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page)
        await say(chat, "w5 w6", "", "w7")
        first, second = page.answers
        assert chat.conversation.turns == (Turn("w5 w6", first.text), Turn("w7", second.text))
        assert second.generation is not None
        assert second.generation.stats.prompt_tokens == len(
            render(chat.conversation.messages()[:3])
        )
        assert len(page.pieces) == 2 * NEW

        await say(chat, "/undo", "w7")
        assert page.answers[-1].text == second.text
        await say(chat, "/retry")
        assert page.answers[-1].text == second.text
        assert len(chat.conversation.turns) == 2

        await say(chat, "/set window 0", "/set max-new-tokens 3", "/system w9", "/new", "w5 w6")
        assert page.answers[-1].generation is not None
        assert (
            page.answers[-1].generation.stats.new_tokens,
            page.answers[-1].generation.stats.drafted_tokens,
        ) == (
            3,
            0,
        )
        assert page.answers[-1].generation.stats.prompt_tokens == 3
        assert len(chat.conversation.turns) == 1


async def test_a_stop_ends_the_answer_and_not_the_chat(make: Callable[[], Swarm]) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page, max_new_tokens=200, window=0, keep=False)
        # again and again, as people do
        page.on_piece = lambda: len(page.pieces) >= 5 and chat.stop()
        await say(chat, "w5 w6")
        (stopped,) = page.answers
        assert (stopped.cut, stopped.generation, stopped.error) == (True, None, None)
        assert 5 <= len(stopped.pieces) < 200
        assert chat.conversation.turns == (Turn("w5 w6", stopped.text, cut=True),)
        assert len(stopped.route) == len(STAGES)
        assert "the conversation keeps this part" in figures(stopped)
        await eventually(lambda: all(peer.idle for peer in swarm.up))  # the sessions are closed

        chat.stop()  # nothing
        page.on_piece = lambda: None
        chat.options["max_new_tokens"] = 4
        await say(chat, "w7")
        assert not page.answers[-1].cut
        assert len(chat.conversation.turns) == 2


async def test_a_swarm_that_fails_costs_the_answer(make: Callable[[], Swarm]) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page, patience_s=0.0, keep=False)
        await say(chat, "w5")
        swarm.states |= {peer.id: "joining" for peer in swarm.up}
        swarm.know(())
        await say(chat, "w6", "/stats", "/route", "/explain")
        failed = page.answers[-1]
        assert (failed.text, failed.cut) == ("", True)
        assert "nobody serves" in str(failed.error) or "no peer serves" in str(failed.error)
        assert len(page.notes) == 3
        assert chat.failure is not None
        assert chat.failure.exit_code is ExitCode.INCOMPLETE
        assert len(chat.conversation.turns) == 1

        swarm.states.clear()
        swarm.know(())
        await say(chat, "/retry")
        assert [turn.question for turn in chat.conversation.turns] == ["w5", "w6"]


async def test_a_question_that_is_no_text_costs_its_answer_and_is_told_by_the_exit_code(
    make: Callable[[], Swarm],
) -> None:
    page = Page()
    reader, writer = os.pipe()
    os.write(writer, b"w5 \xff\nw6\n")
    os.close(writer)
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page)
        await soon(talk(chat, Pipe(reader).read))
    os.close(reader)
    refused, answered = page.answers
    assert (refused.question, refused.text, refused.cut) == ("w5 \ufffd", "", True)
    assert isinstance(refused.error, NotText)
    assert chat.failure is refused.error
    assert refused.error.exit_code == ExitCode.USAGE
    assert chat.conversation.turns == (Turn("w6", answered.text),)


async def test_what_the_context_has_no_room_for_is_forgotten_and_that_is_said(
    make: Callable[[], Swarm],
) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page, context_tokens=2 * NEW + 8)
        await say(chat, "w5", "w6")
        assert not page.notes
        await say(chat, "w7")
        (note,) = page.notes
        assert f"context of {2 * NEW + 8} tokens is full" in note
        assert "/new" in note
        assert [turn.question for turn in chat.conversation.turns] == ["w6", "w7"]
        await say(chat, "w1 " * 600)
        assert "shorten the prompt" in str(page.answers[-1].error)
        assert [turn.question for turn in chat.conversation.turns] == ["w6", "w7"]


async def test_orders_say_what_there_is(make: Callable[[], Swarm], tmp_path: Path) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page, max_new_tokens=6)
        await say(
            chat,
            "/help",
            "/fly",
            "/undo",
            "/retry",
            "/stats",
            "/route",
            "/explain",
            "/save",
            "/set",
            "/system",
        )
        assert all(name in page.notes[0] for name in ORDERS)
        assert page.notes[1].startswith("/fly is unknown; the orders are /help, /new")
        assert len(page.notes) == 10
        assert not page.answers

        page.notes.clear()
        await say(chat, "/system w8", "w5", "/stats", "/route", "/explain", "/set seed x")
        _, stats, route, explained, refused = page.notes
        assert stats.startswith("6 tokens in")
        assert len(route.splitlines()) == len(STAGES)
        assert explained.strip()
        assert refused == "'x' is no seed; give none or a whole number"

        text, data = tmp_path / "talk.md", tmp_path / "talk.json"
        await say(
            chat,
            f"/save {text}",
            f"/save {data}",
            f"/save {data}",
            f"/save {tmp_path}/none/talk",
            "/quit",
            "w6",
        )
        assert text.read_text().startswith("[system]\nw8\n\n[user]\nw5\n\n[assistant]\n")
        assert json.loads(data.read_text()) == {"messages": chat.conversation.messages(), "cut": []}
        assert page.notes[-2].endswith("exists already; name another file.")
        assert "cannot be written (No such file or directory)" in page.notes[-1]
        assert chat.over
        assert len(page.answers) == 1


async def test_every_answer_is_a_line_of_json(
    make: Callable[[], Swarm], capsys: pytest.CaptureFixture[str]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, Page(), max_new_tokens=4, patience_s=0.0, keep=False)
        chat.display = JsonDisplay()
        await say(chat, "w5 w6")
        swarm.states |= {peer.id: "joining" for peer in swarm.up}
        swarm.know(())
        await say(chat, "w7")
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (
        good.keys()
        == bad.keys()
        == {"question", "text", "token_ids", "route", "stats", "cut", "error"}
    )
    assert (good["question"], good["cut"], good["error"], good["stats"]["new_tokens"]) == (
        "w5 w6",
        False,
        None,
        4,
    )
    assert (bad["text"], bad["cut"], bad["stats"]) == ("", True, None)
    assert "serves" in bad["error"]


async def test_a_chat_that_is_cancelled_ends_its_answer(make: Callable[[], Swarm]) -> None:
    page = Page()
    async with swarm_of(make, *STAGES) as swarm:
        chat = chat_of(swarm, page, max_new_tokens=200, window=0, keep=False)
        asking = asyncio.create_task(chat.ask("w5"))
        await eventually(lambda: len(page.pieces) > 3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(asking)
        await eventually(lambda: all(peer.idle for peer in swarm.up))
