"""The client's side of one generation: drafter, decoder, head and text, without any chain or network."""

import logging
import time
from collections.abc import Sequence

from torch import Tensor

from swarm.decoding.decoder import Decoder, Window
from swarm.decoding.drafting.combined import Cascade
from swarm.decoding.drafting.drafter import Drafter
from swarm.decoding.drafting.lookup import LookupDrafter
from swarm.decoding.rules.rule import Decision
from swarm.decoding.window import Loop
from swarm.model.client import ClientModels
from swarm.request import Request
from swarm.results import Generation, Meter, Piece, RouteStop
from swarm.text import StopStrings, TextStream
from swarm.wire.tensors import MAX_FRAME_TOKENS

SURE_MATCH = 6  # tokens that must have occurred before, for a lookup to be preferred to a draft model

log = logging.getLogger(__name__)


class Turn:
    """Drafts, says what to send, and judges what comes back.

    To be used from one thread at a time. Raises `RequestError` or `PromptTooLong` for a prompt that the model cannot
    take.
    """

    def __init__(self, models: ClientModels, prompt: Sequence[int], request: Request) -> None:
        request.check_prompt(prompt, models.checkpoint)
        self.models, self.request, self.prompt = models, request, tuple(prompt)
        self.max_tokens = len(prompt) + request.max_new_tokens
        self.control = request.window_control()
        self.decoder = Decoder(
            prompt,
            request.verification.rule(request.sampling, models.lexicon),
            shaping=request.shaping,
            max_new_tokens=request.max_new_tokens,
            stop_ids=models.checkpoint.eos_token_ids,
            ends_text=self._write,
            chunk=MAX_FRAME_TOKENS,
        )
        self.drafter = make_drafter(models, request)
        self.draft_error: str | None = None
        self.pieces: list[Piece] = []
        self.meter = Meter()
        self._texts = TextStream(models.tokenizer, prompt)
        self._stops = StopStrings(request.stop)
        self._written: list[str] = []  # the text of tokens that are committed and not yet pieces
        self._draft_ms = 0.0  # of what was drafted since the last answer

    def draft(self) -> None:
        """Fill the path as far as the window control wants. A drafter that fails ends drafting, not the generation."""
        if self.drafter is None:
            return
        self.decoder.window = self.control.size()
        if not (room := self.decoder.room):
            return
        started = time.perf_counter()
        try:
            drafted = self.drafter.draft(self.decoder.sequence, room)
        except Exception as error:
            # Whatever it is: a guess is missing, and nothing else. It is told at the end, and not tried again.
            log.warning("drafting failed, going on without: %r", error)
            self.drafter, self.draft_error = None, f"{type(error).__name__}: {error}"
            return
        seconds = time.perf_counter() - started
        self._draft_ms += seconds * 1e3
        self.meter.drafted(len(drafted), seconds)
        self.decoder.propose(drafted)

    def judge(self, window: Window, logits: Tensor, loop_ms: float, compute_ms: tuple[float, ...]) -> list[Piece]:
        """What the chain's answer to a window commits; ``logits`` is ``[tail, vocabulary]``."""
        decisions = self.decoder.receive(window.epoch, window.start, len(window.tokens), logits)
        if not decisions:
            return []
        self.meter.loop(loop_ms, compute_ms, len(decisions))
        if window.start >= len(self.prompt):
            drafted, kept = window.tail - 1, sum(decision.kept for decision in decisions)
            self.control.observe(Loop(len(window.tokens), loop_ms, drafted, kept, self._draft_ms))
        self._draft_ms = 0.0
        if self.decoder.finish_reason:
            self._written[-1] += self._stops.flush()
        pieces = [self._piece(*each) for each in zip(decisions, self._written, strict=True)]
        self._written.clear()
        self.pieces += pieces
        return pieces

    def sum_up(self, route: tuple[RouteStop, ...] = (), bytes_sent: int = 0, bytes_received: int = 0) -> Generation:
        """Everything, at the end."""
        sampling, decoder = self.request.sampling, self.decoder
        assert decoder.finish_reason is not None
        return Generation(
            text="".join(piece.text for piece in self.pieces),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            route=route,
            stats=self.meter.stats(
                decoder.counts,
                prompt_tokens=len(self.prompt),
                bytes_sent=bytes_sent,
                bytes_received=bytes_received,
                seed=sampling.seed if sampling.temperature else None,
                exact=decoder.rule.exact,
                rule=str(self.request.verification),
                draft_error=self.draft_error,
                finish_reason=decoder.finish_reason,
            ),
            pieces=tuple(self.pieces),
        )

    def _write(self, token: int) -> bool:
        """Turn a committed token into text; says whether a stop string is complete with it."""
        self._written.append(self._stops.push(self._texts.push(token)))
        return self._stops.found

    def _piece(self, decision: Decision, text: str) -> Piece:
        choice = decision.token if decision.choice is None else decision.choice
        lost = choice if decision.kept else decision.drafted
        return Piece(
            token_id=decision.token,
            text=text,
            origin=decision.origin,
            drafted_id=decision.drafted,
            choice_id=choice,
            instead_of="" if lost in (None, decision.token) else self.models.lexicon.decode([lost]),
            deficit_nats=decision.deficit_nats,
            key=decision.key,
            reason=decision.reason,
        )


def make_drafter(models: ClientModels, request: Request) -> Drafter | None:
    """The draft model's, a lookup, both (the lookup first, where a longer match makes it likely), or none."""
    stop_ids = models.checkpoint.eos_token_ids
    if request.window == 0:
        return None
    if models.draft is None:
        return LookupDrafter(stop_ids=stop_ids) if request.lookup else None
    drafter = models.draft.drafter(request.sampling, request.shaping, stop_ids)
    if not request.lookup:
        return drafter
    return Cascade([LookupDrafter(SURE_MATCH, SURE_MATCH, stop_ids), drafter], stop_ids)
