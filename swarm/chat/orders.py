"""Orders to the chat itself: lines that begin with a slash."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from swarm.chat.chat import ChatState
from swarm.chat.settings import changed, listed
from swarm.client.conversation import Conversation
from swarm.errors import SwarmError
from swarm.terminal import console

KEYS = (
    'Alt-Enter inserts a line break, as Enter does between """ and """. Ctrl-C stops an answer,'
    " Ctrl-D ends the chat."
)


@dataclass(frozen=True)
class Order:
    """An order; ``run`` gets the text after its name."""

    usage: str
    help: str
    run: Callable[[ChatState, str], Awaitable[None]]


async def obey(chat: ChatState, line: str) -> None:
    """Carry out the order of a line that begins with a slash."""
    name, _, rest = line.strip().partition(" ")
    order = ORDERS.get(name)
    if order is None:
        chat.display.note(
            f"{name} is unknown; the orders are {', '.join(ORDERS)}. To ask a question that begins"
            " with a slash, put a space before it."
        )
        return
    try:
        await order.run(chat, rest.strip())
    except SwarmError as error:
        chat.display.note(f"{error}")


async def _help(chat: ChatState, _: str) -> None:
    lines = [f"  {order.usage:<20}{order.help}" for order in ORDERS.values()]
    chat.display.note("\n".join([*lines, KEYS]))


async def _new(chat: ChatState, _: str) -> None:
    chat.conversation = replace(chat.conversation, turns=())
    chat.last = None
    chat.display.note("A new conversation.")


async def _system(chat: ChatState, text: str) -> None:
    if not text:
        now = chat.conversation.system or "none"
        chat.display.note(
            f"The system prompt: {now}\n/system TEXT changes it, /system - removes it."
        )
        return
    chat.conversation = replace(chat.conversation, system="" if text == "-" else text)
    chat.display.note("The system prompt is changed, from the next answer on.")


async def _undo(chat: ChatState, _: str) -> None:
    if not chat.conversation.turns:
        chat.display.note("There is nothing to undo.")
        return
    chat.display.note(f"Undone: {_shortened(chat.conversation.turns[-1].question)}")
    chat.conversation = chat.conversation.without_last()


async def _retry(chat: ChatState, _: str) -> None:
    if not await chat.retry():
        chat.display.note("Nothing was asked yet.")


async def _set(chat: ChatState, rest: str) -> None:
    name, _, word = rest.partition(" ")
    if not word:
        chat.display.note(
            f"{listed(chat.options)}\n/set NAME VALUE changes one, from the next answer on."
        )
        return
    chat.options = changed(chat.options, name, word.strip())
    chat.display.note(f"{name} is {word.strip()}, from the next answer on.")


async def _stats(chat: ChatState, _: str) -> None:
    if chat.last is None or chat.last.generation is None:
        chat.display.note("There are figures only after an answer that was not stopped.")
    else:
        chat.display.note(console.summary(chat.last.generation))


async def _route(chat: ChatState, _: str) -> None:
    if chat.last is None or not chat.last.route:
        chat.display.note("There is a route only after an answer.")
    else:
        lines = [
            f"  layers {stop.layers[0]}:{stop.layers[1]}  {stop.peer_id}  {stop.rtt_ms:.1f} ms"
            for stop in chat.last.route
        ]
        chat.display.note("\n".join(lines))


async def _explain(chat: ChatState, _: str) -> None:
    if chat.last is None or not chat.last.pieces:
        chat.display.note("There are tokens to explain only after an answer.")
    else:
        chat.display.note("\n".join(console.fates(chat.last.pieces)))


async def _save(chat: ChatState, name: str) -> None:
    if not name:
        chat.display.note("Name a file, as in /save talk.md or /save talk.json.")
        return
    written_as = _as_json if name.endswith(".json") else _as_text
    try:
        _write(name, written_as(chat.conversation))
    except FileExistsError:
        chat.display.note(f"{name} exists already; name another file.")
    except OSError as error:
        chat.display.note(
            f"{name} cannot be written ({error.strerror or error}); name another file."
        )
    else:
        chat.display.note(f"Saved in {name}.")


async def _quit(chat: ChatState, _: str) -> None:
    chat.over = True


ORDERS = {
    order.usage.split()[0]: order
    for order in (
        Order("/help", "this list", _help),
        Order("/new", "begin a new conversation; settings and system prompt stay", _new),
        Order("/system TEXT", "set the system prompt", _system),
        Order("/undo", "remove the last question and its answer", _undo),
        Order("/retry", "answer the last question again", _retry),
        Order("/set NAME VALUE", "change a setting of answers; alone, list all settings", _set),
        Order("/stats", "figures of the last answer", _stats),
        Order("/route", "the peers that computed the last answer", _route),
        Order("/explain", "the last answer's tokens, and where each comes from", _explain),
        Order("/save FILE", "save the conversation as text, or as messages (.json)", _save),
        Order("/quit", "end the chat", _quit),
    )
}


def _write(name: str, text: str) -> None:
    """Write a new file. Raise OSError; FileExistsError if there is one of this name."""
    with Path(name).expanduser().open("x", encoding="utf-8") as file:
        file.write(text)


def _shortened(text: str, width: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _as_json(conversation: Conversation) -> str:
    cut = [number for number, turn in enumerate(conversation.turns) if turn.cut]
    return (
        json.dumps({"messages": conversation.messages(), "cut": cut}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _as_text(conversation: Conversation) -> str:
    parts = [f"[system]\n{conversation.system}\n"] if conversation.system else []
    for turn in conversation.turns:
        parts += [
            f"[user]\n{turn.question}\n",
            f"[assistant]\n{turn.answer}{' [cut]' if turn.cut else ''}\n",
        ]
    return "\n".join(parts)
