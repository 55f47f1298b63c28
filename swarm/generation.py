"""One generation: draft ahead, send ahead, judge what comes back, until the text ends.

Three things go on side by side. A drafter, in a thread of its own, lengthens the tree of what may follow. A sender lets
the likeliest of it go around the loop at the pace that the chain can take. And the main loop judges the answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from swarm.model.client import ClientModels
from swarm.network.tasks import end
from swarm.request import Request
from swarm.results import Generation, Piece, RouteStop
from swarm.session import Answer, ChainLink, ChainSession
from swarm.turn import Turn


@dataclass(frozen=True)
class Threads:
    """Where a client computes, so that the event loop stays free. One thread each."""

    drafting: Executor
    judging: Executor


class GenerationStream:
    """An async iterator of pieces; afterwards `result` sums up. Iterate once.

    Args:
        find_chain: chooses the chain when the generation starts.
    """

    def __init__(
        self,
        models: ClientModels,
        prompt: Sequence[int],
        request: Request,
        threads: Threads,
        find_chain: Callable[[], Awaitable[list[ChainLink]]],
    ) -> None:
        self._models, self._prompt, self._request = models, tuple(prompt), request
        self._threads, self._find_chain = threads, find_chain
        self._result: Generation | None = None

    @property
    def result(self) -> Generation:
        """The finished generation. Raises RuntimeError before the iterator is exhausted."""
        if self._result is None:
            raise RuntimeError("the generation is not finished: iterate to the end first")
        return self._result

    async def __aiter__(self) -> AsyncGenerator[Piece, None]:
        turn = Turn(self._models, self._prompt, self._request)
        chain = await self._find_chain()
        checkpoint = self._models.checkpoint
        async with ChainSession(chain, checkpoint.fingerprint, turn.max_tokens, checkpoint.hidden_size) as session:
            turn.branches = session.branches
            turn.meter.start()
            ahead = _Ahead(turn, session, self._threads.drafting)
            try:
                while not turn.decoder.finish_reason:
                    answer = await ahead.answer()
                    for piece in await self._judge(turn, answer):
                        yield piece
                    ahead.go_on()
            finally:
                await ahead.close()
        route = tuple(RouteStop(c.stage.peer_id, c.layers, c.connection.rtt_ms) for c in chain)
        self._result = turn.sum_up(route, session.bytes_sent, session.bytes_received)

    async def _judge(self, turn: Turn, answer: Answer) -> list[Piece]:
        taken = turn.take(answer.epoch, answer.first, answer.count, answer.hidden.shape[0])
        if not taken:
            return []
        rows, nodes = zip(*taken, strict=True)
        hidden = answer.hidden[list(rows)]
        loop = asyncio.get_running_loop()
        logits = await loop.run_in_executor(self._threads.judging, self._models.head.logits, hidden)
        return turn.judge(nodes, logits, answer.measured)


class _Ahead:
    """The two tasks that run ahead of the answers: drafting and sending. Close it at the end."""

    def __init__(self, turn: Turn, session: ChainSession, drafting: Executor) -> None:
        self._turn, self._session, self._thread = turn, session, drafting
        self._may_draft, self._may_send = asyncio.Event(), asyncio.Event()
        self._tasks = [asyncio.create_task(self._draft()), asyncio.create_task(self._send())]

    async def answer(self) -> Answer:
        """The chain's next answer. Raises what `ChainSession.receive` raises, or what one of the tasks died of."""
        receiving = asyncio.create_task(self._session.receive())
        try:
            await asyncio.wait({receiving, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                for task in self._tasks:
                    if task.done():
                        task.result()
            return await receiving
        finally:
            await end(receiving)

    def go_on(self) -> None:
        """An answer was judged: there may be more to draft and to send."""
        self._may_draft.set()
        self._may_send.set()

    async def close(self) -> None:
        await end(*self._tasks)

    async def _draft(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._may_draft.clear()
            while ask := self._turn.ask():
                self._turn.propose(ask, await loop.run_in_executor(self._thread, self._turn.draft, ask))
                self._may_send.set()
            await self._may_draft.wait()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.time()  # when the next frame may go, unless it is urgent
        while True:
            self._may_send.clear()
            if not self._turn.urgent and (early := ready - loop.time()) > 0:
                loop.call_later(early, self._may_send.set)
            elif window := self._turn.next_window():
                await self._session.send(window)
                ready = loop.time() + self._turn.pace_s
                self._may_draft.set()
                continue
            await self._may_send.wait()
