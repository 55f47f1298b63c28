"""Whether drafting pays: where that is in doubt, the text is written plainly for a while.

A draft that takes nearly as long as a loop gains nothing, and one on a busy processor takes its
time from the head, and from peers on the same machine. No formula knows how much. So the paces of
both ways are measured, each again now and then, and the faster way is taken.
"""

from dataclasses import dataclass, field

from swarm.decoding.policy import LoopReport, PlainReason
from swarm.util.averages import FadingMean

# A draft that takes less of a loop than this costs the client next to nothing.
CHEAP_SHARE = 0.1
# Tokens for each loop from which on drafting pays without a doubt. Below, plain decoding is tried:
# loops take longer while the client drafts, so that a loop says too little.
SURE_TOKENS = 1.8
LEAST_GAIN = 1.05  # speed over that of plain decoding for which drafting is worth its power
# Answers for which a way is tried before it is judged. Plain decoding has an even pace.
DRAFTING_LOOPS = 16
PLAIN_LOOPS = 4
RETRY_LOOPS = 96  # answers after which the other way is tried again
LONGEST_LOOPS = 3.0  # of a pause between two answers that count; a repair of the chain takes longer


@dataclass
class Payoff:
    """Compares the paces of drafting and of plain decoding. Drafts at first.

    Attributes:
        drafts: whether to draft now.
        reason: why not.
    """

    drafts: bool = True
    reason: PlainReason | None = None
    _loop_ms: FadingMean = field(default_factory=FadingMean)  # judging included
    _draft_ms: FadingMean = field(default_factory=FadingMean)  # for one token of a line
    # time for each new token, by whether the text was drafted
    _token_ms: dict[bool, FadingMean] = field(
        default_factory=lambda: {True: FadingMean(), False: FadingMean()}
    )
    _answers: int = 0  # in this way
    _measured: int = 0  # of these, answers to frames that were sent in this way
    _since_ms: float = 0.0  # since this way began

    def observe(self, loop: LoopReport) -> None:
        """Learn from an answer, and decide whether to draft until the next one."""
        loop_ms = loop.loop_ms + loop.judge_ms
        elapsed_ms = min(loop.elapsed_ms, LONGEST_LOOPS * loop_ms)
        self._loop_ms.add(loop_ms)
        if loop.draft_tokens:
            self._draft_ms.add(loop.draft_ms / loop.draft_tokens)
        self._answers += 1
        self._since_ms += elapsed_ms
        if self._since_ms > loop_ms:  # what was in flight when this way began has been answered
            self._measured += 1
            pace = self._token_ms[self.drafts]
            pace.age()
            pace.count(elapsed_ms / loop.tokens, loop.tokens)
        if self._should_draft() != self.drafts:
            self._change()

    def _should_draft(self) -> bool:
        plain_ms = self._token_ms[False].value
        if not self.drafts:
            tried = self._measured >= PLAIN_LOOPS
            return (tried and self._pays(plain_ms)) or self._answers >= RETRY_LOOPS
        if self._measured < DRAFTING_LOOPS or not self._doubtful:
            return True
        if plain_ms is None or self._answers >= RETRY_LOOPS:
            return False
        return self._pays(plain_ms)

    @property
    def _doubtful(self) -> bool:
        """Whether drafting takes a while, and brings less than `SURE_TOKENS` a loop."""
        loop_ms, draft_ms = self._loop_ms.value, self._draft_ms.value
        drafting_ms = self._token_ms[True].value
        if loop_ms is None or draft_ms is None or drafting_ms is None:
            return False
        return draft_ms > CHEAP_SHARE * loop_ms and drafting_ms * SURE_TOKENS > loop_ms

    def _pays(self, plain_ms: float | None) -> bool:
        drafting_ms, loop_ms = self._token_ms[True].value, self._loop_ms.value
        if (self._draft_ms.value or 0.0) >= (loop_ms or 0.0):
            return False  # the text has gone on before a draft comes: a faster pace was chance
        return plain_ms is None or drafting_ms is None or drafting_ms * LEAST_GAIN < plain_ms

    def _change(self) -> None:
        self.drafts = not self.drafts
        self.reason = None if self.drafts else self._why_not()
        self._answers = self._measured = 0
        self._since_ms = 0.0

    def _why_not(self) -> PlainReason:
        """Return which is worse: the draft's pace, which bounds the gain, or its acceptance."""
        loop_ms, draft_ms = self._loop_ms.value or 0.0, self._draft_ms.value or 0.0
        return "draft_slow" if draft_ms * 2 > loop_ms else "draft_wrong"
