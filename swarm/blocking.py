"""The SDK without ``await``: the same client on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from typing_extensions import Unpack

from swarm.client import SwarmClient
from swarm.request import Options
from swarm.results import Generation, Piece

T = TypeVar("T")


class BlockingClient:
    """`SwarmClient` for synchronous code: ``with BlockingClient(model, draft=...) as client: client.generate("...")``.

    Takes the arguments of `SwarmClient`; `generate` and `stream` take those of its methods and raise what they raise.
    Calls from several threads are served side by side.
    """

    def __init__(self, model: str, **options: Any) -> None:
        self._client = SwarmClient(model, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm-client", daemon=True)

    def __enter__(self) -> "BlockingClient":
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._client.__aexit__())
        finally:
            self._stop()

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Generate to the end."""
        return self._wait(self._client.generate(prompt, **options))

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Iterator[Piece]:
        """Generate piece by piece; leaving the loop early ends the generation."""
        pieces = self._client.stream(prompt, **options).__aiter__()
        try:
            while (piece := self._wait(_next(pieces))) is not None:
                yield piece
        finally:
            self._wait(pieces.aclose())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: the work on the loop must end too
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece | None:
    return await anext(pieces, None)
