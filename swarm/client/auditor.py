"""Has texts computed again by other peers, in the background, and finds out which peer lied if the
answers differ.

Only the client can feed an audit, and no peer can recognize one: it is a session like any other, of
the same client over the same links, in which a text seems to be written. Audits run one at a time,
with one window in flight. A run that fails proves nothing.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from swarm.audit.answers import Answers
from swarm.audit.evidence import Evidence
from swarm.audit.tolerance import Tolerance, has_experts, tolerance
from swarm.audit.trial import AUDIT, FIRST, SECOND, WRITTEN, Run, StageParties, Trial, TrialOutcome
from swarm.audit.unaudited import Reason, Unaudited
from swarm.chain.router import Router
from swarm.chain.stage import ChainLink
from swarm.client.models import ClientModels
from swarm.client.rerun import Reruns
from swarm.errors import ChainBroken, MissingLayers, SwarmError
from swarm.outputs import Audits
from swarm.wire.faults import FaultCode

MAX_WAITING = 4  # texts that wait to be audited; others are let go

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parties:
    """The parties that can compute one stage: the original one, and up to two others. Each is one
    peer, or several in a row."""

    choices: tuple[list[ChainLink] | None, ...]

    @property
    def exchanged(self) -> bool:
        return self.choices[SECOND] is not None

    def links(self, which: int) -> list[ChainLink]:
        links = self.choices[which]
        assert links is not None
        return links

    def stage_parties(self) -> StageParties:
        first, second, third = (
            links and tuple(link.peer_id for link in links) for links in self.choices
        )
        assert first
        return StageParties(first, second or None, third or None)


class Auditor:
    """Audits a client's texts. Let `run` run, `offer` texts.

    Args:
        judging: where the final norm is computed.
        rate: how likely a text is audited at least, from 0 (never any) to 1.
        rng: decides which texts are audited, and draws the windows of the runs.
    """

    def __init__(
        self,
        router: Router,
        models: ClientModels,
        judging: Executor,
        rate: float,
        rng: random.Random | None = None,
    ) -> None:
        self.rate = rate
        self._router = router
        self._rng = rng or random.Random()
        self._reruns = Reruns(models, judging, self._rng)
        self._waiting: asyncio.Queue[tuple[Evidence, float]] = asyncio.Queue(MAX_WAITING)
        self._experts = has_experts(models.checkpoint.config)
        self._layers = models.checkpoint.num_layers
        self._audited = 0
        self._disagreed = 0
        self._generated = 0  # token-layers of texts
        self._unsettled = 0
        self._failures: Counter[str] = Counter()

    @property
    def audits(self) -> Audits:
        """What was done so far."""
        computed = self._reruns.token_layers
        return Audits(
            texts=self._audited,
            disagreements=self._disagreed,
            failures=dict(self._failures),
            waiting=self._unsettled,
            caught=self._router.trust.caught,
            token_layers=computed,
            generated_token_layers=self._generated,
            share=computed / self._generated if self._generated else 0.0,
        )

    def offer(self, evidence: Evidence | None, computed_tokens: int) -> None:
        """Offer a finished text, for which the peers computed ``computed_tokens``.

        Whether it is audited is decided at random.
        """
        self._generated += computed_tokens * self._layers
        draw = self._rng.random()
        if evidence is None or draw >= self._chance(stage.peer_id for stage in evidence.stages):
            return
        try:
            self._waiting.put_nowait((evidence, draw))
        except asyncio.QueueFull:
            self._fail(Unaudited(Reason.QUEUE))
        else:
            self._unsettled += 1

    async def run(self) -> None:
        """Audit what is offered, until cancelled."""
        while True:
            evidence, draw = await self._waiting.get()
            try:
                await self._audit(evidence, draw)
            except Unaudited as failure:
                self._fail(failure)
            except Exception:
                log.exception("an audit failed")
                self._failures[Reason.INTERNAL.value] += 1
            finally:
                self._unsettled -= 1
                self._waiting.task_done()

    def _fail(self, failure: Unaudited) -> None:
        """Count a text that could not be audited."""
        log.info("a text was not audited: %s", failure)
        self._failures[failure.reason.value] += 1

    async def settle(self) -> None:
        """Wait until all that was offered has been dealt with."""
        await self._waiting.join()

    async def _audit(self, evidence: Evidence, draw: float) -> None:
        """Compare a text with the answers of other peers, if an audit is due for those peers whose
        work can be compared.

        Raises:
            Unaudited: if it does not come to a comparison.
        """
        if any(map(self._router.trust.lied, evidence.peer_ids)):
            # a ban is known already, and another liar could not be told from it
            raise Unaudited(Reason.BANNED)
        try:
            first = [[link] for link in await self._router.links(evidence.stages)]
            second = await self._others(first, [])
        except SwarmError as error:
            raise Unaudited(Reason.LEFT, str(error)) from None
        parties = [_Parties((a, b, None)) for a, b in zip(first, second, strict=True)]
        exchanged = [each.links(FIRST)[0].peer_id for each in parties if each.exchanged]
        if not exchanged:
            raise Unaudited(Reason.NO_OTHERS)
        if draw >= self._chance(exchanged):
            return
        written, answer = await self._reruns.written(evidence), await self._again(parties, evidence)
        agree = self._same(written, answer, self._tolerance(parties, evidence))
        self._audited += 1
        if agree:
            self._router.ledger.agreed(exchanged, evidence.windows)
            return
        self._disagreed += 1
        log.info("two chains of peers gave different answers to the same text: a trial begins")
        third = await self._others(first, second)
        parties = [_Parties((a, b, c)) for a, b, c in zip(first, second, third, strict=True)]
        await self._punish(await self._try(parties, evidence, {WRITTEN: written, AUDIT: answer}))

    async def _again(self, parties: Sequence[_Parties], evidence: Evidence) -> Answers:
        """Return what the second parties answer. Raises `Unaudited` if they cannot."""
        try:
            return await self._reruns.run(_chain(parties, _seconds(parties)), evidence)
        except ChainBroken as error:
            busy = error.code is FaultCode.BUSY
            raise Unaudited(Reason.BUSY if busy else Reason.BROKEN, str(error)) from None
        except (SwarmError, asyncio.TimeoutError) as error:
            raise Unaudited(Reason.SLOW, str(error)) from None

    async def _try(
        self, parties: Sequence[_Parties], evidence: Evidence, answers: dict[int, Answers]
    ) -> TrialOutcome:
        trial = Trial([each.stage_parties() for each in parties], evidence.gone)
        tolerance, number = self._tolerance(parties, evidence), AUDIT
        while trial.step is not None:
            number += 1
            try:
                answer = await self._reruns.run(_chain(parties, trial.step.run), evidence)
            except (SwarmError, asyncio.TimeoutError) as error:
                log.info("a run of a trial failed: %s", error)
                trial.tell(None)
                continue
            answers[number] = answer
            trial.tell(
                [self._same(answers[other], answer, tolerance) for other in trial.step.against]
            )
        assert trial.outcome is not None
        return trial.outcome

    def _chance(self, peer_ids: Iterable[str]) -> float:
        return self._router.ledger.chance(peer_ids, self.rate)

    async def _punish(self, outcome: TrialOutcome) -> None:
        for peer_id in outcome.convicted:
            await self._router.trust.condemn(peer_id)
        for peer_ids in outcome.suspected:
            await self._router.trust.doubt(peer_ids)
        for peer_ids in outcome.disputed:
            await self._router.trust.doubt(peer_ids, dispute=True)

    async def _others(
        self, first: Sequence[list[ChainLink]], second: Sequence[list[ChainLink] | None]
    ) -> list[list[ChainLink] | None]:
        """Return, for each stage, peers that have no part in the audit yet and are not suspected;
        None where there are none."""
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

    def _tolerance(self, parties: Sequence[_Parties], evidence: Evidence) -> Tolerance:
        links = [link for each in parties for choice in each.choices for link in choice or ()]
        return tolerance(evidence.dtypes | {link.record.dtype for link in links}, self._experts)

    @staticmethod
    def _same(one: Answers, other: Answers, tolerance: Tolerance) -> bool:
        return tolerance.holds(one.distances(other))


def _seconds(parties: Sequence[_Parties]) -> Run:
    return tuple(SECOND if each.exchanged else FIRST for each in parties)


def _chain(parties: Sequence[_Parties], run: Run) -> list[ChainLink]:
    return [link for each, which in zip(parties, run, strict=True) for link in each.links(which)]
