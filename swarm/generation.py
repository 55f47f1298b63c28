"""One generation: draft a window, send it around the loop, judge the answer, until the text ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from swarm.model.client import ClientModels
from swarm.request import Request
from swarm.results import Generation, Piece, RouteStop
from swarm.session import Answer, ChainLink, ChainSession
from swarm.turn import Turn

T = TypeVar("T")


class GenerationStream:
    """An async iterator of pieces; afterwards `result` sums up. Iterate once.

    Args:
        thinker: one thread that drafts and judges, so that the event loop stays free.
        find_chain: chooses the chain when the generation starts.
    """

    def __init__(
        self,
        models: ClientModels,
        prompt: Sequence[int],
        request: Request,
        thinker: Executor,
        find_chain: Callable[[], Awaitable[list[ChainLink]]],
    ) -> None:
        self._models, self._prompt, self._request = models, tuple(prompt), request
        self._thinker, self._find_chain = thinker, find_chain
        self._result: Generation | None = None

    @property
    def result(self) -> Generation:
        """The finished generation. Raises RuntimeError before the iterator is exhausted."""
        if self._result is None:
            raise RuntimeError("the generation is not finished: iterate to the end first")
        return self._result

    async def __aiter__(self) -> AsyncGenerator[Piece, None]:
        turn = Turn(self._models, self._prompt, self._request)
        decoder = turn.decoder
        chain = await self._find_chain()
        checkpoint = self._models.checkpoint
        async with ChainSession(chain, checkpoint.fingerprint, turn.max_tokens, checkpoint.hidden_size) as session:
            turn.meter.start()
            while not decoder.finish_reason:
                await self._think(turn.draft)
                while window := decoder.next_window():
                    await session.send(window)
                answer = await session.receive()
                for piece in await self._think(partial(self._judge, turn, answer)):
                    yield piece
        route = tuple(RouteStop(c.stage.peer_id, c.layers, c.connection.rtt_ms) for c in chain)
        self._result = turn.sum_up(route, session.bytes_sent, session.bytes_received)

    def _judge(self, turn: Turn, answer: Answer) -> list[Piece]:
        logits = self._models.head.logits(answer.hidden)
        return turn.judge(answer.window, logits, answer.loop_ms, answer.compute_ms)

    async def _think(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thinker, work)
