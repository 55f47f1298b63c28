"""One generation: draft ahead, send ahead, judge what comes back, until the text ends.

Three things go on side by side. A drafter, in a thread of its own, lengthens the tree of what may
follow. A sender lets the likeliest of it go around the loop at the pace that the chain can take.
And the main loop judges the answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from swarm.audit.evidence import Samples
from swarm.chain.answer import ChainAnswer
from swarm.chain.failover import Repairer
from swarm.chain.router import Router
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.standby import Standby
from swarm.chain.trust import LIED
from swarm.client.ahead import Ahead
from swarm.client.auditor import Auditor
from swarm.client.cpu_threads import Executors
from swarm.client.judging import judge
from swarm.client.models import ClientModels
from swarm.client.opening import Beginning, SessionOpener, use_taps
from swarm.client.outline_mask import AnswerMask
from swarm.client.repairs import Repairs
from swarm.client.sequence import TextSequence
from swarm.client.session_cache import SessionCache
from swarm.client.text_memory import TextMemory
from swarm.decoding.candidates import CandidateRow, head_terms
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken, ChainSilent, SwarmIncomplete
from swarm.outputs import Generation, Measured, Piece, RouteStop
from swarm.request import Request
from swarm.util.tasks import end
from swarm.wire.candidates import HeadTerms

CANDIDATES = 64  # that a peer tells of each prediction: half a kilobyte, and rarely too few


class GenerationStream:
    """An async iterator of pieces; afterwards `result` sums up. Iterate once.

    Raises `RequestError` for tokens that the model does not have, and `NeedsHead` for what a client
    without a head cannot do.

    Args:
        router: chooses the chain, and peers that take the place of others.
        auditor: is offered the text when it is finished.
        kept: sessions that this text may go on from; its own is kept there if the request says so.
        memory: earlier texts, which this one is drafted from and joins.
    """

    def __init__(
        self,
        models: ClientModels,
        prompt: Sequence[int],
        request: Request,
        threads: Executors,
        router: Router,
        auditor: Auditor | None = None,
        kept: SessionCache | None = None,
        memory: TextMemory | None = None,
    ) -> None:
        request.check_vocabulary(models.checkpoint)
        if models.head is None:
            request.check_needs_no_head()
            biases = request.shaping.logit_bias
            self._terms: HeadTerms | None = head_terms(request.sampling, biases, CANDIDATES)
        else:
            self._terms = None
        self._models = models
        self._prompt = tuple(prompt)
        self._request = request
        self._threads = threads
        self._router = router
        self._auditor = auditor
        self._kept = kept if request.keep else None
        self._memory = memory
        self._earlier: EarlierTexts | None = None
        if memory is not None and request.remembered_for is not None and request.copies:
            self._earlier = memory.of(request.remembered_for)
        self._samples = Samples()
        self._result: Generation | None = None
        self._session: ChainSession | None = None
        self._standby: Standby | None = None
        self._measured: Measured | None = None

    @property
    def standby(self) -> tuple[RouteStop, ...]:
        """The peers that stand by and could take a place in the chain now."""
        return _stops(self._standby.ready if self._standby else ())

    @property
    def route(self) -> tuple[RouteStop, ...]:
        """The chain as it is now; empty before it is found."""
        return _stops(self._session.chain if self._session else ())

    @property
    def measured(self) -> Measured | None:
        """What the chain's last answer took; None before the first."""
        return self._measured

    @property
    def result(self) -> Generation:
        """The finished generation, or after a `SwarmIncomplete` what there is of it.

        Raises:
            RuntimeError: before the iterator is exhausted.
        """
        if self._result is None:
            raise RuntimeError("the generation is not finished: iterate to the end first")
        return self._result

    async def __aiter__(self) -> AsyncGenerator[Piece, None]:
        beginning = await self._begin()
        sequence, session, held = beginning.sequence, beginning.session, beginning.held
        self._session = session
        standby = self._standby = Standby(session, self._router, self._request.standby, held)
        repairs = Repairs(
            Repairer(session, self._router, standby, self._request.patience_s), session.clock
        )
        watching = asyncio.create_task(self._router.watch())
        if self._kept is not None:
            self._kept.begun(session, lambda: sequence.decoder.held or held, self._request.owner)
        sequence.meter.start()
        finished = False
        try:
            while not sequence.decoder.finish_reason:
                try:
                    async with aclosing(self._run(sequence, session, repairs, standby)) as pieces:
                        async for piece in pieces:
                            yield piece
                except (ChainBroken, ChainSilent) as failure:
                    await repairs.repair(failure, sequence.decoder.resume)
                    use_taps(session, sequence)
                    if isinstance(failure, ChainBroken):
                        self._forget(failure.peer_id, session)
            self._result = self._sum_up(sequence, session, repairs)
            self._offer(sequence, session)
            self._remember(sequence)
            finished = True
        except SwarmIncomplete as error:
            sequence.decoder.finish_reason = "swarm_incomplete"
            error.generation = self._result = self._sum_up(sequence, session, repairs)
            raise
        finally:
            try:
                await end(watching)
                await standby.close()
                await self._leave(session, sequence.decoder.held if finished else None)
            finally:
                if self._kept is not None:
                    self._kept.left(session)
        self._router.learn(self._result.route, sequence.meter.stages)

    async def _begin(self) -> Beginning:
        """Go on in a session that holds a beginning of this text, or open a new one."""
        grammar = await self._compile()

        def sequence_from(held: ResumePoint) -> TextSequence:
            return TextSequence(
                self._models, self._prompt, self._request, held, self._earlier, grammar
            )

        opener = SessionOpener(
            self._models, self._request, self._router, self._kept, self._terms, sequence_from
        )
        return await opener.begin(self._prompt)

    async def _compile(self) -> AnswerMask | None:
        """Return the mask of the request's constraint, if there is one."""
        constraint = self._request.constraint
        if constraint is None:
            return None
        ends = self._request.stop_ids(self._models.checkpoint)
        # not in a thread that other texts need: it may take seconds
        return await asyncio.to_thread(self._models.grammars.mask, constraint, ends)

    async def _leave(self, session: ChainSession, held: ResumePoint | None) -> None:
        """The other half of `_begin`."""
        if self._kept is not None and held is not None:
            await self._kept.put(session, held, self._request.owner)
        else:
            await session.close()

    async def _run(
        self, sequence: TextSequence, session: ChainSession, repairs: Repairs, standby: Standby
    ) -> AsyncGenerator[Piece, None]:
        """Decode until the text ends or the chain breaks."""
        sequence.branches = session.protocol.branches  # of a new, a kept, or a repaired session
        ahead = Ahead(sequence, session, standby, self._threads.drafting)
        try:
            while not sequence.decoder.finish_reason:
                answer = await ahead.answer()
                self._check_honesty(session)
                repairs.answered(answer.at)
                pieces, failure = await self._judge(sequence, session, answer)
                if pieces:
                    standby.answered(answer)
                for piece in pieces:
                    yield piece
                if failure is not None:
                    raise failure
                ahead.go_on()
        finally:
            await ahead.close()

    def _check_honesty(self, session: ChainSession) -> None:
        """Raise `ChainBroken` if what the peers hold rests on the work of a peer that lied.

        A liar that has left is forgotten if no peer of the chain holds what follows from its lies.
        """
        trust = self._router.trust
        while liar := trust.liar(session):
            if liar in session.chain or trust.misled(session, liar):
                raise ChainBroken(liar.peer_id, liar.layers, LIED)
            self._forget(liar.peer_id, session)

    def _forget(self, peer_id: str, session: ChainSession) -> None:
        """Forget a peer that lied and was replaced, with all peers that its lies have reached, and
        the samples of what they answered: these say nothing about the peers that are left."""
        if self._router.trust.lied(peer_id):
            session.protocol.forget(peer_id)
            self._samples = Samples()

    def _sum_up(
        self, sequence: TextSequence, session: ChainSession, repairs: Repairs
    ) -> Generation:
        done = sequence.sum_up(
            self.route, session.bytes_sent, session.bytes_received, tuple(repairs.failovers)
        )
        if self._auditor is None:
            return done
        return replace(done, stats=replace(done.stats, audits=self._auditor.audits))

    def _offer(self, sequence: TextSequence, session: ChainSession) -> None:
        """Offer the text and the samples of its answers to the auditor."""
        if self._auditor is None:
            return
        book = sequence.decoder.book
        evidence = self._samples.evidence(
            sequence.decoder.tokens,
            len(sequence.prompt),
            [link.stage for link in session.chain],
            {peer_id: link.record.dtype for peer_id, link in session.parties.items()},
            session.max_tokens,
            self._terms,
            session.protocol.taps,
            None if book is None else book.answered_from(len(sequence.prompt)),
        )
        computed = len(sequence.prompt) - sequence.cached_tokens + sequence.decoder.counts.sent
        self._auditor.offer(evidence, computed)

    def _remember(self, sequence: TextSequence) -> None:
        """Have the text join the earlier ones."""
        if self._memory is not None and self._earlier is not None:
            self._memory.add(self._earlier, sequence.decoder.tokens, self._threads.drafting)

    async def _judge(
        self, sequence: TextSequence, session: ChainSession, answer: ChainAnswer
    ) -> tuple[list[Piece], ChainBroken | None]:
        """Return the pieces that an answer decides, and the failure that kept it from deciding
        more: what was decided before counts."""
        failure = None
        if sequence.decoder.book is not None:
            sequence.decoder.book.tapped(answer.taps)
            sequence.decoder.book.prompt(answer.windows, answer.hidden)
        taken = sequence.take(answer.windows, answer.measured, answer.at)
        if not taken:
            return [], None
        self._measured = answer.measured
        rows, nodes = zip(*taken, strict=True)
        loop = asyncio.get_running_loop()
        if self._terms is not None:
            told = [answer.candidates[row] for row in rows]
            self._samples.answered(nodes, told)
            try:
                await self._decide_told(sequence, session, nodes, told)
            except ChainBroken as broken:
                failure = broken
        else:
            hidden = answer.hidden[list(rows)]
            head = self._models.own_head
            choosing = sequence.choosing(nodes)
            judged = await loop.run_in_executor(
                self._threads.judging, judge, head, hidden, choosing, self._request.hidden_states
            )
            sequence.decide(nodes, hidden, judged)
            while (node := sequence.wanted) is not None:
                assert node.output is not None
                logits = await loop.run_in_executor(
                    self._threads.judging, head.logits, node.output[None]
                )
                sequence.tell(node, logits[0])
            self._samples.answered(nodes, hidden)
        pieces = sequence.settle(len(nodes), answer.measured)
        self._samples.settle()
        return pieces, failure

    @staticmethod
    async def _decide_told(
        sequence: TextSequence,
        session: ChainSession,
        nodes: Sequence[DraftNode],
        told: Sequence[CandidateRow],
    ) -> None:
        """Decide by what the last peer told; ask it for more wherever that does not decide."""
        sequence.decide_told(nodes, told)
        while (node := sequence.decoder.undecided) is not None:
            assert node.told is not None
            sequence.decide_told([node], [await session.refine(node.serial, node.told)])


def _stops(links: Sequence[ChainLink]) -> tuple[RouteStop, ...]:
    return tuple(RouteStop(link.peer_id, link.layers, link.connection.rtt_ms) for link in links)
