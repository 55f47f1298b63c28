"""One run of an audit: a text goes through a chain as if it were being generated."""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor

from swarm.audit.answers import Answers
from swarm.audit.evidence import Answer, Evidence
from swarm.audit.replay import places, replay_windows
from swarm.chain.answer import ChainAnswer
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.terms import Terms
from swarm.client.models import ClientModels
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.windows import Window
from swarm.errors import ChainSilent
from swarm.util.tasks import within

RUN_TIMEOUT_S = 120.0  # for a run to begin and to end
# and for each of its windows on the average, be they chunks of a prompt or loops
WINDOW_TIMEOUT_S = 10.0
MAX_SILENCES = 8  # of a chain in one run: it may be busy, and an audit is not urgent


class Reruns:
    """Runs texts of one model again, for `swarm.client.auditor`.

    Args:
        judging: the executor in which the final norm is computed.
        rng: draws the windows of each run.

    Attributes:
        token_layers: that peers were given to compute so far.
    """

    def __init__(self, models: ClientModels, judging: Executor, rng: random.Random) -> None:
        self._models = models
        self._judging = judging
        self._rng = rng
        self.token_layers = 0

    async def written(self, evidence: Evidence) -> Answers:
        """Return the answers of the text's own chain."""
        return await self._answers(evidence, evidence.candidates or evidence.hidden)

    async def run(self, chain: Sequence[ChainLink], evidence: Evidence) -> Answers:
        """Return a chain's answers at the positions of the evidence.

        Raises:
            ChainBroken, ChainSilent: if the chain fails.
            asyncio.TimeoutError: if it takes too long.
        """
        frames = list(
            replay_windows(
                evidence.replayed, evidence.prompt_tokens, self._rng, evidence.answered_from
            )
        )
        limit_s = RUN_TIMEOUT_S + WINDOW_TIMEOUT_S * len(frames)
        rows = await within(limit_s, self._replay(chain, evidence, frames))
        return await self._answers(evidence, [rows[place] for place in evidence.positions])

    async def _replay(
        self, chain: Sequence[ChainLink], evidence: Evidence, frames: Sequence[Window]
    ) -> dict[int, Answer]:
        """Return final hidden states ``[hidden]``, before the final norm, or candidates, by
        position."""
        checkpoint, wanted = self._models.checkpoint, set(evidence.positions)
        rows: dict[int, Answer] = {}
        session = ChainSession(
            chain,
            Terms(
                checkpoint.fingerprint,
                evidence.max_tokens,
                checkpoint.hidden_size,
                head=evidence.head,
                vocabulary=checkpoint.vocab_size,
                taps=evidence.taps,
            ),
        )
        async with session:
            for frame in frames:
                self.token_layers += len(frame.tokens) * checkpoint.num_layers
                await session.send(frame)
                # a chunk whose answer predicts nothing may be answered later
                answered = frame.tail == frame.features
                while not answered:
                    answer = await _answer(session)
                    for window, part in answer.rows:
                        told = zip(places(window), part, strict=True)
                        rows |= {place: row for place, row in told if place in wanted}
                        answered = answered or window is frame
        return rows

    async def _answers(self, evidence: Evidence, rows: Tensor | Sequence[Answer]) -> Answers:
        told = tuple(row for row in rows if isinstance(row, CandidateRow))
        text, positions = evidence.replayed, evidence.positions
        if told:
            return Answers(text, positions, torch.empty(0, 0), told)
        hidden = torch.stack([row.float() for row in rows if isinstance(row, Tensor)])
        norm = asyncio.get_running_loop().run_in_executor(
            self._judging, self._models.own_head.normed, hidden
        )
        return Answers(text, positions, await norm)


async def _answer(session: ChainSession) -> ChainAnswer:
    """Return the next answer; it may take longer than in a text that a user waits for."""
    for _ in range(MAX_SILENCES):
        try:
            return await session.receive()
        except ChainSilent:
            await asyncio.sleep(session.protocol.patience_s)
    return await session.receive()
