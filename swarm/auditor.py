"""Has texts computed again by other peers, in the background, and finds out who lied if the answers differ.

Nobody but the client can feed an audit, and no peer can tell that it is one: an audit is a session as any other, of the
same client over the same links, in which a text seems to be written. One is made at a time, with one window in flight.
A run that fails proves nothing.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.audit.distance import distances
from swarm.audit.evidence import Evidence
from swarm.audit.replay import windows
from swarm.audit.tolerance import Tolerance, has_experts, tolerance
from swarm.audit.trial import AUDIT, FIRST, SECOND, WRITTEN, Outcome, Run, Stand, Trial
from swarm.chain import ChainLink, ChainSilent
from swarm.errors import SwarmError
from swarm.model.client import ClientModels
from swarm.network.tasks import within
from swarm.results import Audits
from swarm.router import Router
from swarm.routing.chain import MissingLayers
from swarm.session import Answer, ChainSession

MAX_WAITING = 4  # texts that wait to be audited; others are let go
RUN_TIMEOUT_S = 120.0
MAX_SILENCES = 8  # of a chain in one run: it may be busy, and an audit has time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parties:
    """Who could compute one stage: who did, and up to two others, each one peer or several in a row."""

    choices: tuple[list[ChainLink] | None, ...]

    @property
    def exchanged(self) -> bool:
        return self.choices[SECOND] is not None

    def links(self, which: int) -> list[ChainLink]:
        links = self.choices[which]
        assert links is not None
        return links

    def stand(self) -> Stand:
        first, second, third = (links and tuple(link.peer_id for link in links) for links in self.choices)
        assert first
        return Stand(first, second or None, third or None)


class Auditor:
    """Audits a client's texts. Let `run` run, `offer` texts.

    Args:
        judging: where the final norm is computed.
        rate: how likely a text is audited at least, from 0 (never any) to 1.
        rng: decides which texts are audited, and draws the windows of the runs.
    """

    def __init__(
        self, router: Router, models: ClientModels, judging: Executor, rate: float, rng: random.Random | None = None
    ) -> None:
        self.rate = rate
        self._router, self._models, self._judging = router, models, judging
        self._rng = rng or random.Random()
        self._waiting: asyncio.Queue[Evidence] = asyncio.Queue(MAX_WAITING)
        self._experts = has_experts(models.checkpoint.config)
        self._audited = self._disagreed = self._token_layers = self._generated = 0

    @property
    def audits(self) -> Audits:
        """What was done so far."""
        share = self._token_layers / self._generated if self._generated else 0.0
        return Audits(self._audited, self._disagreed, self._router.caught, self._token_layers, self._generated, share)

    def offer(self, evidence: Evidence | None, computed_tokens: int) -> None:
        """A text is finished, for which peers computed so many tokens."""
        self._generated += computed_tokens * self._models.checkpoint.num_layers
        if evidence is not None and self.rate and not self._waiting.full():
            self._waiting.put_nowait(evidence)

    async def run(self) -> None:
        """Audit what is offered, until cancelled."""
        while True:
            evidence = await self._waiting.get()
            try:
                await self._consider(evidence)
            except (SwarmError, asyncio.TimeoutError) as error:
                log.info("an audit came to nothing: %s", error)
            except Exception:
                log.exception("an audit failed")
            finally:
                self._waiting.task_done()

    async def settle(self) -> None:
        """Wait until all that was offered has been dealt with."""
        await self._waiting.join()

    async def _consider(self, evidence: Evidence) -> None:
        """Audit a text, if its turn has come and there are others who could compute it."""
        ledger, draw = self._router.ledger, self._rng.random()
        if draw >= ledger.chance((stage.peer_id for stage in evidence.stages), self.rate):
            return
        first = [[link] for link in await self._router.links(evidence.stages)]
        second = await self._others(first, [])
        exchanged = [links[0].peer_id for links, other in zip(first, second, strict=True) if other]
        if draw >= ledger.chance(exchanged, self.rate):
            return
        parties = [_Parties((a, b, None)) for a, b in zip(first, second, strict=True)]
        written, answer = await self._norm(evidence.hidden), await self._compute(parties, _seconds(parties), evidence)
        if answer is None:
            return
        self._audited += 1
        if self._same(written, answer, self._tolerance(parties, evidence)):
            ledger.agreed(exchanged, evidence.windows)
            return
        self._disagreed += 1
        log.info("two chains of peers gave different answers to the same text: a trial begins")
        third = await self._others(first, second)
        parties = [_Parties((a, b, c)) for a, b, c in zip(first, second, third, strict=True)]
        self._punish(await self._try(parties, evidence, {WRITTEN: written, AUDIT: answer}))

    async def _try(self, parties: Sequence[_Parties], evidence: Evidence, answers: dict[int, Tensor]) -> Outcome:
        trial = Trial([each.stand() for each in parties], evidence.gone)
        tolerance, number = self._tolerance(parties, evidence), AUDIT
        while trial.step is not None:
            number += 1
            answer = await self._compute(parties, trial.step.run, evidence)
            if answer is None:
                trial.tell(None)
                continue
            answers[number] = answer
            trial.tell([self._same(answers[other], answer, tolerance) for other in trial.step.against])
        assert trial.outcome is not None
        return trial.outcome

    def _punish(self, outcome: Outcome) -> None:
        for peer_id in outcome.convicted:
            self._router.condemn(peer_id)
        for peer_ids in outcome.suspected:
            self._router.doubt(peer_ids)
        for peer_ids in outcome.disputed:
            self._router.doubt(peer_ids, dispute=True)

    async def _others(
        self, first: Sequence[list[ChainLink]], second: Sequence[list[ChainLink] | None]
    ) -> list[list[ChainLink] | None]:
        """For each stage peers that have no part in the audit yet and are beyond suspicion, if there are any."""
        taken = {link.peer_id for links in (*first, *second) for link in links or ()}
        avoid = taken | set(self._router.ledger.suspects)
        found: list[list[ChainLink] | None] = []
        for links in first:
            try:
                others = await self._router.span(*links[0].layers, avoid)
            except MissingLayers:
                found.append(None)
                continue
            avoid |= {link.peer_id for link in others}  # a session lives once on a peer
            found.append(others)
        return found

    async def _compute(self, parties: Sequence[_Parties], run: Run, evidence: Evidence) -> Tensor | None:
        """What a chain says at the positions of the evidence, behind the final norm; None if the chain fails."""
        chain = [link for each, which in zip(parties, run, strict=True) for link in each.links(which)]
        try:
            rows = await within(RUN_TIMEOUT_S, self._replay(chain, evidence))
        except (SwarmError, asyncio.TimeoutError) as error:
            log.info("a run of an audit failed: %s", error)
            return None
        return await self._norm(rows)

    async def _replay(self, chain: Sequence[ChainLink], evidence: Evidence) -> Tensor:
        """Final hidden states ``[n, hidden]`` at the positions of the evidence."""
        checkpoint, wanted = self._models.checkpoint, set(evidence.positions)
        tokens = evidence.tokens[: evidence.positions[-1] + 1]
        rows: list[Tensor] = []
        session = ChainSession(chain, checkpoint.fingerprint, evidence.max_tokens, checkpoint.hidden_size)
        async with session:
            for window in windows(tokens, evidence.prompt_tokens, self._rng):
                self._token_layers += len(window.tokens) * checkpoint.num_layers
                await session.send(window)
                if window.tail:
                    hidden = (await self._answer(session)).hidden
                    behind = window.position + len(window.tokens) - window.tail
                    rows += [row for i, row in enumerate(hidden, behind) if i in wanted]
        return torch.stack([row.float() for row in rows])

    @staticmethod
    async def _answer(session: ChainSession) -> Answer:
        """The next answer, for which a text that somebody reads would not have waited so long."""
        for _ in range(MAX_SILENCES):
            try:
                return await session.receive()
            except ChainSilent:
                await asyncio.sleep(session.patience_s)
        return await session.receive()

    async def _norm(self, hidden: Tensor) -> Tensor:
        return await asyncio.get_running_loop().run_in_executor(self._judging, self._models.head.normed, hidden)

    def _tolerance(self, parties: Sequence[_Parties], evidence: Evidence) -> Tolerance:
        links = [link for each in parties for choice in each.choices for link in choice or ()]
        return tolerance(evidence.dtypes | {link.record.dtype for link in links}, self._experts)

    @staticmethod
    def _same(one: Tensor, other: Tensor, tolerance: Tolerance) -> bool:
        return tolerance.holds(distances(one, other))


def _seconds(parties: Sequence[_Parties]) -> Run:
    return tuple(SECOND if each.exchanged else FIRST for each in parties)
