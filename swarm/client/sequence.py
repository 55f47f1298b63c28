"""The client's side of one generation: drafter, decoder, head and text, without any network."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from swarm.client.detokenizer import Detokenizer, StopStrings
from swarm.client.drafters import (
    LEAST_COPY,
    Draft,
    correction_of,
    draft_for,
    head_failure,
    kind_of,
    make_book,
    make_drafters,
)
from swarm.client.grammar import masks_of
from swarm.client.judging import Judged
from swarm.client.meter import Meter, TextFacts
from swarm.client.models import ClientModels
from swarm.client.outline_mask import AnswerMask
from swarm.client.pieces import Written, piece_of
from swarm.decoding.ask import Ask
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.certificate import Choosing
from swarm.decoding.decoder import Decoder
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.decoding.policy import LoopReport, PlainReason, SpeculationPlan
from swarm.decoding.rules.rule import Decision, Needs
from swarm.decoding.windows import NOTHING_HELD, ResumePoint, Window
from swarm.outputs import Failover, Generation, Measured, Piece, RouteStop
from swarm.request import Request
from swarm.wire.taps import TapTerms
from swarm.wire.tensors import MAX_FRAME_TOKENS


class TextSequence:
    """The state of one text: it drafts, decides what to send, and judges the chain's answers.

    `draft` may run in a thread of its own, everything else belongs to one thread. Raises
    `RequestError` or `PromptTooLong` for a prompt that the model cannot take.

    Args:
        held: the part of the prompt that the chain holds already.
        earlier: texts that may be copied, besides the text itself.
        grammar: the mask of the answer, if the request constrains it.

    Attributes:
        max_tokens: that a session has to have room for.
        branches: whether the chain takes several continuations of one token. May be denied before
            a frame is sent.
    """

    def __init__(
        self,
        models: ClientModels,
        prompt: Sequence[int],
        request: Request,
        held: ResumePoint = NOTHING_HELD,
        earlier: EarlierTexts | None = None,
        grammar: AnswerMask | None = None,
    ) -> None:
        request.check_prompt(prompt, models.checkpoint)
        self.models = models
        self.request = request
        self.prompt = tuple(prompt)
        self.max_tokens = request.session_tokens(len(prompt))
        self.cached_tokens = len(held.tokens)
        self.branches = True
        self.policy = request.policy()
        if request.window:
            models.calibrations.begin_text()
        heads = head_failure(models, request) is None
        self._grammar = grammar
        self.shaping = request.shaping.of_text(
            len(prompt), masks_of(request, models.checkpoint, grammar)
        )
        drafters = make_drafters(
            models, request, earlier, heads=heads, shaping=self.shaping, forcing=grammar
        )
        self.decoder = Decoder(
            prompt,
            request.verification.rule(request.sampling, models.lexicon),
            shaping=self.shaping,
            max_new_tokens=request.max_new_tokens,
            stop_ids=request.stop_ids(models.checkpoint),
            ends_text=self._write,
            confidence=models.confidence,
            chunk=MAX_FRAME_TOKENS,
            held=held,
            book=make_book(models, drafters, held, request.keep),
        )
        self.decoder.correction = correction_of(models, request)
        self.decoder.verifier.likelihoods = request.logprobs is not None
        self.drafters = drafters
        self._tellers: frozenset[str] | None = None
        if Source.FEATURES in drafters and self.taps is None:
            self.told_by(frozenset())
        self.drafter_kind = kind_of(drafters)
        self.draft_error = head_failure(models, request)
        self.pieces: list[Piece] = []
        self.meter = Meter()
        self._texts = Detokenizer(models.tokenizer, prompt, request.spelled_tokens)
        self._stops = StopStrings(request.stop)
        self._chars = 0  # of the text so far, with those that a stop string may still cut
        self._written: list[Written] = []  # committed tokens that are not yet pieces
        self._decisions: list[Decision] = []  # committed tokens, likewise
        self._draft_ms = 0.0  # spent on drafts since the last answer
        self._draft_tokens = 0  # by which the longest line grew in this time
        self._plans: Counter[PlainReason | None] = Counter()  # answers, by why nothing was drafted
        self._kept = 0  # drafted tokens, up to the last answer

    # Drafting.

    @property
    def taps(self) -> TapTerms | None:
        """Which outputs of the target's layers the chain should tell."""
        book = self.decoder.book
        return TapTerms(layers=book.taps) if book is not None and book.taps else None

    def told_by(self, tellers: frozenset[str]) -> None:
        """Note which peers tell outputs of layers from now on: a head is calibrated by these."""
        self._tellers = tellers
        self.decoder.calibration = self.models.calibrations.of(tellers)

    def leave_head(self, why: str) -> None:
        """Go on without a head that reads the target's states; ``why`` is reported."""
        if Source.FEATURES in self.drafters:
            self._leave(Source.FEATURES, why)

    def ask(self) -> Ask | None:
        """Return what to draft now, if anything, for `draft`, whose result goes to `propose`."""
        self._replan()
        ask = self.decoder.ask()
        if ask:
            self.meter.path.asked()
        return ask

    def draft(self, ask: Ask) -> Draft:
        """Draft for an `Ask`.

        It touches only the drafter, and may run in a thread of its own.
        """
        return draft_for(ask, self.drafters.get(ask.source))

    def propose(self, ask: Ask, draft: Draft) -> None:
        """Take a draft. A drafter that fails is not asked again; the generation goes on."""
        if self.decoder.sources[-1:] == (ask.source,):  # it may have been left meanwhile
            self._count_draft(draft)
        else:  # the pace of the text is that of the costliest source
            self.meter.path.drafted(draft.seconds)
        if draft.error is not None:
            self._leave(ask.source, draft.error)
        self.decoder.propose(ask, draft.guesses)

    def _leave(self, source: Source, why: str) -> None:
        """Do not ask a source any more; ``why`` is reported."""
        self.drafters.pop(source, None)
        self.draft_error = why
        if source is Source.FEATURES and self.decoder.book is not None:
            self.decoder.book.close()

    def _count_draft(self, draft: Draft) -> None:
        tokens = max(map(len, draft.guesses), default=0)
        if self.meter.drafts:  # the first one reads the prompt
            self._draft_ms += draft.seconds * 1e3
            self._draft_tokens += tokens
        self.meter.drafted(tokens, draft.seconds)

    # Sending.

    def next_window(self) -> Window | None:
        """Return the next window to send, or None if there is nothing to send now."""
        self._replan()
        window = self.decoder.next_window()
        if window:
            self.meter.path.sent(window.first, self.decoder.plan.pace_ms / 1e3, self.pace_s)
        return window

    @property
    def urgent(self) -> bool:
        """Whether the next frame must not wait, because the text went another way."""
        return self.decoder.urgent

    @property
    def pace_s(self) -> float:
        """Seconds to leave between the last frame and the next one."""
        return self.decoder.pause_ms / 1e3

    def _replan(self) -> None:
        if failure := head_failure(self.models, self.request, self._tellers):
            self.leave_head(failure)
        self.decoder.sources = tuple(self.drafters)
        if not self.drafters:
            self.decoder.plan = SpeculationPlan(reason=self._no_drafter)
            return
        plan = self.policy.plan()
        without_model = set(self.decoder.sources) - {Source.FORCED} == {Source.COPY}
        if self.request.lookup is None and without_model:
            plan = replace(plan, least_chance=max(plan.least_chance, LEAST_COPY))
        self.decoder.plan = plan if self.branches else replace(plan, branches=1)

    @property
    def _no_drafter(self) -> PlainReason:
        """Why there is no drafter."""
        if self.draft_error is not None:
            return "draft_failed"
        return "no_draft" if self.request.window else "requested"

    # Judging.

    def take(
        self, windows: Sequence[Window], measured: Measured, at: float | None = None
    ) -> list[tuple[int, DraftNode]]:
        """Return the rows of an answer to turn into logits, for `judge`; see `Decoder.take`.

        Args:
            at: when the answer arrived, by the meter's clock; None is now.
        """
        path = self.meter.path
        path.answered(windows[-1].first, self.meter.clock() if at is None else at, measured)
        rows = self.decoder.take(windows)
        if not rows:
            path.judged(left=False)
        return rows

    def judge(
        self,
        answered: Sequence[DraftNode],
        logits: Tensor,
        measured: Measured,
        hidden: Tensor | None = None,
    ) -> list[Piece]:
        """Commit what the chain's answers at some tokens decide, and return the pieces.

        Args:
            logits: ``[len(answered), vocabulary]``.
            hidden: ``[len(answered), hidden]`` behind the final norm, if the request asks for
                hidden states.
        """
        self._decisions += self.decoder.judge(answered, logits, hidden)
        return self.settle(len(answered), measured)

    def choosing(self, nodes: Sequence[DraftNode]) -> Choosing | None:
        """Return how to choose what follows some nodes; None if logits are made in any case: they
        are needed, or the head is too small for bounds."""
        head = self.models.head
        if head is None or head.rounded is None:
            return None
        request = self.request
        decoder = self.decoder
        needs_logits = decoder.verifier.rule.needs is Needs.LOGITS
        if needs_logits or request.logprobs is not None or request.logits:
            return None
        paths = tuple(tuple(decoder.tree.path(node)) for node in nodes)
        return Choosing(request.sampling, self.shaping, tuple(decoder.tokens), paths)

    def decide(self, answered: Sequence[DraftNode], outputs: Tensor, judged: Judged) -> None:
        """Commit what the chain's answers at some tokens decide; `settle` returns the pieces.

        While a node is `wanted`, make logits of its ``output``, and give them to `tell`.

        Args:
            outputs: ``[len(answered), hidden]``, the answers.
        """
        for node, output in zip(answered, outputs, strict=True):
            node.output = output
        if self.decoder.book is not None:
            self.decoder.book.answered(answered, outputs)
        self._decisions += self.decoder.judge(
            answered, judged.logits, judged.normed, judged.choices
        )

    def decide_told(self, answered: Sequence[DraftNode], told: Sequence[CandidateRow]) -> None:
        """Commit what the last peer told of the predictions decides; `settle` returns the pieces.

        While a node is `Decoder.undecided`, ask for more of its prediction, and call this again.
        """
        self._decisions += self.decoder.judge_told(answered, told)

    @property
    def wanted(self) -> DraftNode | None:
        """See `Decoder.wanted`."""
        return self.decoder.wanted

    def tell(self, node: DraftNode, logits: Tensor) -> None:
        """Go on with the logits ``[vocabulary]`` of the wanted node."""
        self._decisions += self.decoder.judge([node], [logits])

    def settle(self, positions: int, measured: Measured) -> list[Piece]:
        """Return the pieces that an answer of so many positions decided."""
        self.meter.judged(left=self.decoder.urgent)
        decisions = self._decisions
        self._decisions = []
        if not decisions:
            return []
        self._learn(positions, measured, len(decisions))
        pieces = [
            piece_of(decision, written, self.request, self.models.lexicon)
            for decision, written in zip(decisions, self._written, strict=True)
        ]
        if self.decoder.finish_reason:
            pieces[-1] = self._with_the_rest(pieces[-1])
        self._written.clear()
        self.pieces += pieces
        return pieces

    def _learn(self, positions: int, measured: Measured, tokens: int) -> None:
        before = self.meter.last_token
        self.meter.loop(measured, tokens)
        self._plans[self.decoder.plan.reason] += 1
        kept = self.decoder.counts.accepted
        if self.pieces:  # the first answer carried the prompt
            loop = LoopReport(
                positions=positions,
                loop_ms=measured.loop_ms,
                drafted=positions - 1,
                kept=kept - self._kept,
                draft_ms=self._draft_ms,
                draft_tokens=self._draft_tokens,
                stage_ms=max(measured.compute_ms, default=0.0),
                queue_ms=max(measured.queue_ms, default=0.0),
                judge_ms=self.meter.judge_s[-1] * 1e3,
                tokens=tokens,
                elapsed_ms=(self.meter.last_token - before) * 1e3,
            )
            self.policy.observe(loop)
        self._kept = kept
        self._draft_ms = 0.0
        self._draft_tokens = 0

    def sum_up(
        self,
        route: tuple[RouteStop, ...] = (),
        bytes_sent: int = 0,
        bytes_received: int = 0,
        failovers: tuple[Failover, ...] = (),
    ) -> Generation:
        """Return the generation with its statistics, at the end."""
        sampling, decoder = self.request.sampling, self.decoder
        assert decoder.finish_reason is not None
        if self.pieces:  # also of a text that is given up
            self.pieces[-1] = self._with_the_rest(self.pieces[-1])
        facts = TextFacts(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            bytes_sent=bytes_sent,
            bytes_received=bytes_received,
            seed=sampling.seed if sampling.temperature else None,
            exact=decoder.verifier.rule.exact,
            rule=str(self.request.verification),
            draft_error=self.draft_error,
            drafter=self.drafter_kind,
            plain_reason=self._plain_reason,
            failovers=failovers,
            finish_reason=decoder.finish_reason,
            route=route,
            compute=self.models.compute,
        )
        return Generation(
            text="".join(piece.text for piece in self.pieces),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            route=route,
            stats=self.meter.stats(decoder.counts, facts),
            pieces=tuple(self.pieces),
        )

    @property
    def _plain_reason(self) -> PlainReason | None:
        """Why most of the text was decoded plainly; None if it was not."""
        return max(self._plans, key=self._plans.__getitem__) if self._plans else None

    def _write(self, token: int) -> bool:
        """Turn a committed token into text; return whether it ends the text: it completes a stop
        string, or all that the constraint allows."""
        offset, text = self._chars, self._texts.push(token)
        self._chars += len(text)
        may_end = len(self.decoder.tokens) - len(self.prompt) >= self.request.min_tokens
        self._written.append(Written(offset, self._stops.push(text) if may_end else text))
        if self._stops.found or self._grammar is None:
            return self._stops.found
        return self._grammar.ends(self.decoder.tokens[len(self.prompt) :])

    def _with_the_rest(self, piece: Piece) -> Piece:
        """Return the last piece with all text that was held back. May be called twice.

        Text is held back while it may be part of a character or of a stop string.
        """
        rest = self._stops.push(self._texts.flush()) + self._stops.flush()
        return replace(piece, text=piece.text + rest) if rest else piece
