"""``swarm chat``: a conversation."""

import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.decoding import AUDIT_PATIENCE_S, decoding_options, prepared
from swarm.cli.options import ModelName, Text, entrance, entrance_options
from swarm.terminal import console
from swarm.terminal.activity import activity
from swarm.terminal.signals import on_signals, run

if TYPE_CHECKING:
    from swarm.chat.chat import Chat
    from swarm.chat.reading import Terminal


@click.command()
@click.argument("model", type=ModelName())
@click.option(
    "--system", type=Text(), default="", help="What the model is told before everything else."
)
@click.option(
    "--raw",
    is_flag=True,
    help="Let the model continue the text, without the form of a conversation.",
)
@decoding_options
@entrance_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line for every answer."
)
def chat(model: str, system: str, raw: bool, as_json: bool, **options: Any) -> None:
    """Talk with MODEL (a local folder or a hub id).

    In a terminal, /help lists what can be done besides asking. Elsewhere every line of standard
    input is a question.
    """
    net, identity = entrance()
    from swarm.chat import display
    from swarm.chat.chat import Chat
    from swarm.chat.orders import ORDERS
    from swarm.chat.reading import Pipe, Terminal
    from swarm.chat.talk import talk
    from swarm.client.conversation import Conversation, as_plain_text, by_template
    from swarm.config import state_dir
    from swarm.request import context_tokens

    client, asked = prepared(model, net, identity, **options, keep=True)
    personal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json

    async def converse() -> Chat:
        with activity(quiet=as_json or not personal) as waiting_for:
            waiting_for(f"loading {model} and entering the network {net.name}")
            async with client:
                waiting_for("")
                tokenizer = client.models.tokenizer
                chat = Chat(
                    client,
                    as_plain_text(tokenizer) if raw else by_template(tokenizer, model),
                    display.Json() if as_json else display.Text(waiting_for, figures=personal),
                    context_tokens(client.models.checkpoint),
                    asked,
                    Conversation(system),
                )
                if personal:
                    chat.display.note(
                        f"{model}, served by the network {net.name}. /help lists what you can do"
                        " here."
                    )
                    await _until_it_is_over(
                        chat, Terminal(state_dir() / "chat.history", list(ORDERS))
                    )
                else:
                    await talk(chat, Pipe(sys.stdin.fileno()).read)
                console.show_audits(await client.settle(0 if personal else AUDIT_PATIENCE_S))
                return chat

    done = run(converse())
    if done.failure is not None and not personal:
        sys.exit(done.failure.exit_code)


async def _until_it_is_over(chat: "Chat", terminal: "Terminal") -> None:
    """Talk with a person, for whom Ctrl-C ends an answer and never the program."""
    from swarm.chat.talk import talk

    with on_signals((signal.SIGINT,), lambda _: chat.stop()):
        await talk(chat, terminal.read)
