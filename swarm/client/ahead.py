"""The two tasks of a generation that run ahead of the chain's answers."""

import asyncio
from concurrent.futures import Executor

from swarm.chain.answer import ChainAnswer
from swarm.chain.session import ChainSession
from swarm.chain.standby import Standby
from swarm.client.judging import ROWS_AT_ONCE
from swarm.client.sequence import TextSequence
from swarm.util.tasks import end


class Ahead:
    """Drafts, and sends at the pace that the chain can take. Close it at the end.

    Args:
        drafting: where the drafter computes.
    """

    def __init__(
        self, sequence: TextSequence, session: ChainSession, standby: Standby, drafting: Executor
    ) -> None:
        self._sequence = sequence
        self._session = session
        self._standby = standby
        self._thread = drafting
        self._may_draft = asyncio.Event()
        self._may_send = asyncio.Event()
        self._tasks = [asyncio.create_task(self._draft()), asyncio.create_task(self._send())]

    async def answer(self) -> ChainAnswer:
        """Return the chain's next answer, with what has come behind it: to judge some answers
        together takes hardly longer than to judge one.

        Raises what `ChainSession.receive` raises, or what one of the tasks died of.
        """
        receiving = asyncio.create_task(self._session.receive(ROWS_AT_ONCE))
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
        self._sequence.decoder.withdraw()

    async def _draft(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._may_draft.clear()
            while ask := self._sequence.ask():
                draft = await loop.run_in_executor(self._thread, self._sequence.draft, ask)
                self._sequence.propose(ask, draft)
                self._may_send.set()
            await self._may_draft.wait()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.time()  # when the next window may go, unless it is urgent
        while True:
            self._may_send.clear()
            if not self._sequence.urgent and (early := ready - loop.time()) > 0:
                loop.call_later(early, self._may_send.set)
            elif window := self._sequence.next_window():
                self._standby.sent(window)
                await self._session.send(window)
                ready = loop.time() + self._sequence.pace_s
                self._may_draft.set()
                continue
            await self._may_send.wait()
