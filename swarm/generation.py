"""One generation: draft a window, send it around the loop, judge the answer, until the text ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from swarm.decoding.decoder import Decoder
from swarm.decoding.verify import Decision, Strict
from swarm.model.client import ClientModels
from swarm.request import Request
from swarm.results import Generation, Meter, Piece, RouteStop
from swarm.session import Answer, ChainLink, ChainSession
from swarm.text import TextStream
from swarm.wire.tensors import MAX_FRAME_TOKENS

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
        request, models = self._request, self._models
        request.check_prompt(self._prompt, models.checkpoint)
        turn = _Turn(models, self._prompt, request)
        decoder = turn.decoder
        chain = await self._find_chain()
        checkpoint = models.checkpoint
        async with ChainSession(chain, checkpoint.fingerprint, turn.max_tokens, checkpoint.hidden_size) as session:
            turn.meter.start()
            while not decoder.finish_reason:
                await self._think(turn.draft)
                while window := decoder.next_window():
                    await session.send(window)
                answer = await session.receive()
                for decision in await self._think(partial(turn.judge, answer)):
                    yield turn.piece(decision)
        self._result = turn.sum_up(session, chain)

    async def _think(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thinker, work)


class _Turn:
    """The client's side of a generation: drafter, decoder, head and text, with a meter on each."""

    def __init__(self, models: ClientModels, prompt: Sequence[int], request: Request) -> None:
        self.models, self.prompt, self.sampling = models, prompt, request.sampling
        self.max_tokens = len(prompt) + request.max_new_tokens
        self.decoder = Decoder(
            prompt,
            Strict(request.sampling),
            max_new_tokens=request.max_new_tokens,
            stop_ids=models.checkpoint.eos_token_ids,
            window=request.window if models.draft else 0,
            chunk=MAX_FRAME_TOKENS,
        )
        self.drafter = models.draft.drafter(request.sampling, self.decoder.stop_ids) if models.draft else None
        self.texts = TextStream(models.tokenizer, prompt)
        self.pieces: list[Piece] = []
        self.meter = Meter()

    def draft(self) -> None:
        """Fill the path as far as there is room."""
        room = self.decoder.room
        if self.drafter is None or not room:
            return
        started = time.perf_counter()
        drafted = self.drafter.draft([*self.decoder.tokens, *self.decoder.path], room)
        self.meter.drafted(len(drafted), time.perf_counter() - started)
        self.decoder.propose(drafted)

    def judge(self, answer: Answer) -> list[Decision]:
        """What the chain's answer commits."""
        logits = self.models.head.logits(answer.hidden)
        decisions = self.decoder.receive(answer.epoch, answer.start, answer.count, logits)
        if decisions:
            self.meter.loop(answer.loop_ms, answer.compute_ms, len(decisions))
        return decisions

    def piece(self, decision: Decision) -> Piece:
        self.pieces.append(Piece(decision.token, self.texts.push(decision.token), decision.origin))
        return self.pieces[-1]

    def sum_up(self, session: ChainSession, chain: Sequence[ChainLink]) -> Generation:
        assert self.decoder.finish_reason is not None
        return Generation(
            text="".join(piece.text for piece in self.pieces),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            route=tuple(RouteStop(c.stage.peer_id, c.layers, c.connection.rtt_ms) for c in chain),
            stats=self.meter.stats(
                self.decoder.counts,
                prompt_tokens=len(self.prompt),
                bytes_sent=session.bytes_sent,
                bytes_received=session.bytes_received,
                seed=self.sampling.seed if self.sampling.temperature else None,
                finish_reason=self.decoder.finish_reason,
            ),
        )
