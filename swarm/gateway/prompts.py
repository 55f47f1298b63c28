"""What a request asks becomes token ids: in bounded time, in threads, and fair to all who ask.

A text that cannot fit the model's context is found out by a part of it: it is counted slice by
slice, and the slices of several texts take turns. Only what is likely to fit is read as a whole.
Short texts have a thread of their own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TypeVar

from swarm.client.models import ClientModels
from swarm.client.prompt import encoded
from swarm.gateway.chat import chat_prompt, chat_text
from swarm.gateway.errors import BadRequest
from swarm.gateway.requests import Body, ChatBody, TextBody
from swarm.request import PromptTooLong, context_tokens

SHORT_BYTES = 32 << 10  # of a text that is read at once
SLICE_CHARS = 16 << 10
# how wrong the sum over slices may be: words that a cut divides count twice
SLACK, SLACK_TOKENS = 0.05, 64

T = TypeVar("T")
TokenIds = list[int]


class Threads:
    """Where bodies and prompts are read: what is short never waits for what is long.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(1, thread_name_prefix="short-prompts")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-prompts")

    def __enter__(self) -> "Threads":
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
        """The result of what reads so many bytes."""
        executor = self._short if nbytes <= SHORT_BYTES else self._long
        return await asyncio.get_running_loop().run_in_executor(executor, work)


async def prompts_of(body: Body, models: ClientModels, threads: Threads) -> list[TokenIds]:
    """The token ids of all prompts of a body, whose texts are gone from it then.

    Raises:
        BadRequest, PromptTooLong: if one cannot be read, or cannot fit the model's context.
    """
    room = _Room(context_tokens(models.checkpoint), body.new_tokens[0] or 1)
    if isinstance(body, ChatBody):
        return [await _of_chat(body, models, threads, room)]
    assert isinstance(body, TextBody)
    prompts = []
    for prompt in body.prompt:
        if isinstance(prompt, str):
            await room.check(prompt, models, threads)
            prompt = await threads.run(_nbytes(prompt), partial(encoded, models.tokenizer, prompt))
        elif len(prompt) > room.tokens:
            raise PromptTooLong(len(prompt), room.new_tokens, room.context_tokens)
        prompts.append(prompt)
    body.prompt.clear()
    return prompts


async def _of_chat(
    body: ChatBody, models: ClientModels, threads: Threads, room: "_Room"
) -> TokenIds:
    messages, tokenizer = body.messages, models.tokenizer
    nbytes = sum(_nbytes(message.content) for message in messages)
    if nbytes > room.tokens:
        text = await threads.run(nbytes, partial(chat_text, tokenizer, messages))
        await room.check(text, models, threads)
    prompt = await threads.run(nbytes, partial(chat_prompt, tokenizer, messages))
    messages.clear()
    return prompt


class _Room:
    """What a prompt may take of a model's context."""

    def __init__(self, context_tokens: int, new_tokens: int) -> None:
        self.context_tokens, self.new_tokens = context_tokens, new_tokens
        self.tokens = context_tokens - new_tokens

    async def check(self, text: str, models: ClientModels, threads: Threads) -> None:
        """Raises `BadRequest` as soon as it is certain that a text is too long."""
        most = self.tokens * (1 + SLACK) + SLACK_TOKENS
        nbytes = _nbytes(text)
        counted, left_bytes = 0, nbytes
        for start in range(0, len(text), SLICE_CHARS):
            if counted + left_bytes <= most:  # a token has a byte at least
                return
            part = text[start : start + SLICE_CHARS]
            counted += await threads.run(nbytes, partial(_count, models, part))
            left_bytes -= _nbytes(part)
            if counted > most:
                whole = round(counted * len(text) / (start + len(part)))
                raise BadRequest(
                    f"the prompt has about {whole} tokens and {self.new_tokens} new ones are asked"
                    f" for, but the model's context ends at {self.context_tokens}; shorten the"
                    " prompt",
                    code="context_length_exceeded",
                )


def _count(models: ClientModels, text: str) -> int:
    return len(models.tokenizer(text, add_special_tokens=False).input_ids)


def _nbytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
