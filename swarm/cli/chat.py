"""``swarm chat``: a conversation."""

import signal
import sys
from typing import TYPE_CHECKING

import click

from swarm.cli.decoding import AUDIT_PATIENCE_S, DecodingOptions, decoding_options
from swarm.cli.options import entrance, entrance_options
from swarm.cli.params import ModelName, TextParam
from swarm.terminal import console
from swarm.terminal.activity import activity
from swarm.terminal.signals import on_signals, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.chat.chat import ChatState, Display
    from swarm.chat.reading import Terminal
    from swarm.chat.thoughts import Thoughts
    from swarm.model.compute import ComputeOptions


@click.command()
@click.argument("model", type=ModelName())
@click.option("--system", type=TextParam(), default="", help="System message of the conversation.")
@click.option("--raw", is_flag=True, help="Continue plain text, without the model's chat template.")
@decoding_options
@entrance_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line and answer.")
def chat(
    model: str,
    system: str,
    raw: bool,
    as_json: bool,
    decoding: DecodingOptions,
    compute: "ComputeOptions",
) -> None:
    """Talk with MODEL (a folder, a GGUF file, or a hub id).

    In a terminal, /help lists the commands of the conversation. Otherwise every line of standard
    input is a question.
    """
    net, identity = entrance()
    from swarm.chat.chat import ChatState
    from swarm.chat.orders import ORDERS
    from swarm.chat.reading import Pipe, Terminal
    from swarm.chat.talk import talk
    from swarm.chat.thoughts import Thoughts
    from swarm.client.conversation import Conversation, as_plain_text, by_template
    from swarm.config import state_dir
    from swarm.request import context_tokens

    options = decoding.of_text(keep=True)
    client = decoding.client(model, net, identity, compute)
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json

    async def converse() -> ChatState:
        with activity(quiet=as_json or not interactive) as waiting_for:
            waiting_for(f"loading {model} and entering the network {net.name}")
            async with client:
                waiting_for("")
                tokenizer = client.models.tokenizer
                thoughts = Thoughts.of(tokenizer, raw)
                chat = ChatState(
                    client,
                    as_plain_text(tokenizer) if raw else by_template(tokenizer, model),
                    _display(waiting_for, as_json, interactive, thoughts),
                    context_tokens(client.models.checkpoint),
                    options,
                    thoughts,
                    Conversation(system),
                )
                if interactive:
                    chat.display.note(
                        f"{model}, served by the network {net.name}. /help lists what you can do"
                        " here."
                    )
                    await _talk_in_terminal(
                        chat, Terminal(state_dir() / "chat.history", list(ORDERS))
                    )
                else:
                    await talk(chat, Pipe(sys.stdin.fileno()).read)
                console.show_audits(await client.settle(0 if interactive else AUDIT_PATIENCE_S))
                return chat

    done = run(converse())
    if done.failure is not None and not interactive:
        sys.exit(done.failure.exit_code)


async def _talk_in_terminal(chat: "ChatState", terminal: "Terminal") -> None:
    """Talk with a person, for whom Ctrl-C ends an answer and never the program."""
    from swarm.chat.talk import talk

    with on_signals((signal.SIGINT,), lambda _: chat.stop()):
        await talk(chat, terminal.read)


def _display(
    waiting_for: "Callable[[str], None]", as_json: bool, figures: bool, thoughts: "Thoughts"
) -> "Display":
    from swarm.chat.display import JsonDisplay, TextDisplay

    return JsonDisplay() if as_json else TextDisplay(waiting_for, figures, thoughts)
