"""The SDK without ``await``: the same client on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from concurrent import futures
from contextlib import suppress
from typing import Any, TypeVar

from typing_extensions import Unpack

from swarm.client.batch import DEFAULT_AT_ONCE
from swarm.client.client import SwarmClient
from swarm.client.conversation import Message
from swarm.client.scoring import Reading
from swarm.client.settings import ClientOptions
from swarm.outputs import Generation, Piece
from swarm.request import Options
from swarm.util.tasks import end, end_all

END_TIMEOUT_S = 5.0  # for interrupted work to end: it takes leave of the peers

T = TypeVar("T")


class BlockingClient:
    """`SwarmClient` for synchronous code:
    ``with BlockingClient(model, draft=...) as client: client.generate("...")``.

    It takes the arguments of `SwarmClient`, and its methods take and raise what the methods of the
    same name do. Calls from several threads run side by side. `open` and `close` may be called
    instead of ``with``.

    Attributes:
        client: the client that runs on the loop; for use with `run`.
    """

    def __init__(self, model: str, **options: Unpack[ClientOptions]) -> None:
        self.client = SwarmClient(model, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="swarm-client", daemon=True
        )

    def open(self) -> "BlockingClient":
        """Load the models and enter the swarm. Call it once.

        Raises what `SwarmClient` raises on entering.
        """
        self._thread.start()
        try:
            self.run(self.client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def close(self) -> None:
        """Leave the swarm. A second call does nothing."""
        if not self._thread.is_alive():
            return
        try:
            self.run(self.client.__aexit__())
        finally:
            self._stop()

    def __enter__(self) -> "BlockingClient":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate to the end."""
        return self.run(self.client.generate(prompt, **options))

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        at_once: int = DEFAULT_AT_ONCE,
        **options: Unpack[Options],
    ) -> list[Generation]:
        """Generate from many prompts side by side."""
        return self.run(self.client.generate_many(prompts, at_once=at_once, **options))

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt for the answer to a conversation."""
        return self.client.chat_prompt(messages)

    def read(self, prompt: str | Sequence[int], *, logits_to_keep: int = 0) -> Reading:
        """Return the hidden states and logits of every token of a text."""
        return self.run(self.client.read(prompt, logits_to_keep=logits_to_keep))

    def score(self, prompt: str | Sequence[int], *, likely: int = 0) -> list[Piece]:
        """Return every token of a text with its log probability."""
        return self.run(self.client.score(prompt, likely=likely))

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Iterator[Piece]:
        """Generate piece by piece; leaving the loop early ends the generation."""
        pieces = self.client.stream(prompt, **options).__aiter__()
        while (piece := self.run(_next(pieces))) is not None:  # an error ends the pieces
            try:
                yield piece
            except BaseException:
                self.run(pieces.aclose())
                raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop, of `client` or your own, and return its result.
        Ctrl-C ends it, and is raised when it is over, or after `END_TIMEOUT_S`.

        Raises:
            RuntimeError: if the client is not open.
        """
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("the client is not open: use it in a `with` block, or call open()")
        tasks: list[asyncio.Task[Any]] = []
        try:
            return self._submit(_noted(work, tasks)).result()
        except BaseException:
            # What comes next, such as `close`, must not meet the work while it still runs.
            with suppress(futures.TimeoutError):
                self._submit(_end(tasks)).result(END_TIMEOUT_S)
            raise

    def _submit(self, work: Coroutine[Any, Any, T]) -> "futures.Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop(self) -> None:
        self._submit(end_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece | None:
    return await anext(pieces, None)


async def _noted(work: Coroutine[Any, Any, T], tasks: "list[asyncio.Task[Any]]") -> T:
    """Do the work, and add the task that does it to ``tasks``."""
    task = asyncio.current_task()
    assert task is not None
    tasks.append(task)
    return await work


async def _end(tasks: "list[asyncio.Task[Any]]") -> None:
    """End tasks, those included that were noted after the call."""
    await end(*tasks)
