"""A gateway whose model says what a script says: with real prompts, peers and figures.

The demo's models write neither calls nor thoughts. So the text of their tokens is replaced.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest import mock

from helpers import gateway_in_process
from helpers.gateway_in_process import InProcessClient, Served, gateway_over
from helpers.swarm_in_process import Material
from swarm.client.generation import GenerationStream
from swarm.outputs import Generation, Piece

CHARS = 7  # of the script for one token
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content }}{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}</s>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<assistant>"
    "{% if enable_thinking %}<think>\n{% endif %}"
    "{% if false %}<tool_call></think>{% endif %}"
)


class ScriptedStream:
    """A real generation whose tokens have the text of a script."""

    def __init__(self, stream: GenerationStream, script: str, tokens: int) -> None:
        self._stream = stream
        self._texts = _cut(script, tokens)
        self._pieces: list[Piece] = []

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Piece]:
        async for piece in self._stream:
            said = replace(piece, text=next(self._texts))
            self._pieces.append(said)
            yield said

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    @property
    def result(self) -> Generation:
        result = self._stream.result
        stats = replace(result.stats, finish_reason="stop")
        text = "".join(piece.text for piece in self._pieces)
        return replace(result, text=text, pieces=tuple(self._pieces), stats=stats)


class ScriptedClient(InProcessClient):
    """A client whose answers are a script; ``prompts`` are the texts that it was asked."""

    script: str
    prompts: list[str]

    def stream(self, prompt, **options):  # type: ignore[no-untyped-def]
        self.prompts.append(self.models.tokenizer.decode(prompt))
        tokens = min(options["max_new_tokens"], max(1, -(-len(self.script) // CHARS)))
        eos = self.models.checkpoint.eos_token_ids
        bias = {**options.get("logit_bias", {}), **dict.fromkeys(eos, -100.0)}
        own = {**options, "max_new_tokens": tokens, "logit_bias": bias}
        return ScriptedStream(super().stream(prompt, **own), self.script, tokens)


def _cut(script: str, tokens: int) -> Iterator[str]:
    for number in range(tokens):
        end = None if number == tokens - 1 else (number + 1) * CHARS
        yield script[number * CHARS : end]


@asynccontextmanager
async def scripted_gateway(
    material: Material, script: str, template: str = CHAT, **settings: object
) -> AsyncIterator[tuple[Served, list[str]]]:
    """Serve a model with this chat template that answers every request with the script.

    Yield the gateway, and a list that gets the prompts.
    """
    prompts: list[str] = []

    def client(*arguments: object) -> ScriptedClient:
        made = ScriptedClient(*arguments)  # type: ignore[arg-type]
        made.script = script
        made.prompts = prompts
        return made

    tokenizer = material.models.tokenizer
    with (
        mock.patch.object(gateway_in_process, "InProcessClient", client),
        mock.patch.object(tokenizer, "chat_template", template),
    ):
        async with gateway_over(material, **settings) as served:
            yield served, prompts
