"""Turn the prompts of requests into token ids: in bounded time, in threads, and fairly.

A text that cannot fit the model's context is refused after a part of it: its tokens are counted
slice by slice, and the slices of several texts take turns. Only a text that is likely to fit is
tokenized as a whole. Short texts have a thread of their own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TypeVar

from swarm.client.chat_template import ChatPrompt
from swarm.client.infilling import Infilling
from swarm.client.models import ClientModels
from swarm.client.prompt import encoded, encoded_bare
from swarm.errors import PromptTooLong
from swarm.gateway.asked import Asked
from swarm.gateway.chat import Chat
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import TextBody
from swarm.request import context_tokens

SHORT_BYTES = 32 << 10  # of a text that does not wait behind longer ones
SLICE_CHARS = 16 << 10
# how much the sum over slices may exceed the true count: words that a cut divides count twice
SLACK = 0.05
SLACK_TOKENS = 64

T = TypeVar("T")


class ParserThreads:
    """Threads that parse bodies and tokenize prompts: short ones never wait for long ones.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(1, thread_name_prefix="short-prompts")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-prompts")

    def __enter__(self) -> "ParserThreads":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for executor in (self._short, self._long):
            executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, nbytes: int, work: Callable[[], T]) -> T:
        """Return the result of ``work``, which reads ``nbytes``."""
        executor = self._short if nbytes <= SHORT_BYTES else self._long
        return await asyncio.get_running_loop().run_in_executor(executor, work)


async def prompts_of(
    asked: Asked, models: ClientModels, threads: ParserThreads
) -> list[ChatPrompt]:
    """Return all prompts of a request, and drop their texts from it.

    Raises:
        BadRequest, PromptTooLong: if one is invalid, or cannot fit the model's context.
    """
    source = asked.source
    room = _ContextRoom(context_tokens(models.checkpoint), asked.body.new_tokens[0] or 1)
    if isinstance(source, Chat):
        return [await _of_chat(source, models, threads, room)]
    prompts = []
    for prompt in source.prompt:
        if isinstance(prompt, str):
            text = prompt + source.suffix
            await room.check(text, models, threads)
            encode = partial(_encoded, prompt, source, asked.infilling, models)
            prompt = await threads.run(_nbytes(text), encode)
        elif len(prompt) > room.tokens:
            raise PromptTooLong(len(prompt), room.new_tokens, room.context_tokens)
        prompts.append(ChatPrompt(prompt))
    source.prompt.clear()
    return prompts


def _encoded(
    prompt: str, body: TextBody, infilling: Infilling | None, models: ClientModels
) -> list[int]:
    if infilling is not None:
        return infilling.prompt(prompt, body.suffix, body.add_special_tokens)
    encode = encoded if body.add_special_tokens else encoded_bare
    return encode(models.tokenizer, prompt)


async def _of_chat(
    chat: Chat, models: ClientModels, threads: ParserThreads, room: "_ContextRoom"
) -> ChatPrompt:
    nbytes = chat.body.nbytes
    if nbytes > room.tokens:
        text = await threads.run(nbytes, chat.text)
        await room.check(text, models, threads)
    prompt = await threads.run(nbytes, chat.prompt)
    chat.body.messages.clear()
    return prompt


class _ContextRoom:
    """The part of a model's context that a prompt may fill: ``tokens``."""

    def __init__(self, context_tokens: int, new_tokens: int) -> None:
        self.context_tokens = context_tokens
        self.new_tokens = new_tokens
        self.tokens = context_tokens - new_tokens

    async def check(self, text: str, models: ClientModels, threads: ParserThreads) -> None:
        """Count a text's tokens, and raise `BadRequest` as soon as it is certainly too long."""
        most = self.tokens * (1 + SLACK) + SLACK_TOKENS
        nbytes = _nbytes(text)
        counted, left_bytes = 0, nbytes
        for start in range(0, len(text), SLICE_CHARS):
            if counted + left_bytes <= most:  # a token has at least one byte
                return
            part = text[start : start + SLICE_CHARS]
            counted += await threads.run(nbytes, partial(_count, models, part))
            left_bytes -= _nbytes(part)
            if counted > most:
                whole = round(counted * len(text) / (start + len(part)))
                raise BadRequest(
                    f"the prompt has about {whole} tokens and {self.new_tokens} new ones are"
                    f" requested, but the model's context ends at {self.context_tokens};"
                    " shorten the prompt",
                    code="context_length_exceeded",
                )


def _count(models: ClientModels, text: str) -> int:
    return len(models.tokenizer(text, add_special_tokens=False).input_ids)


def _nbytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
