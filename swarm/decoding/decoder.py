"""The decoding loop as a pure state machine: what to send next, what is committed, when to flush.

The sequence is the prompt and what was generated (*committed*), followed by drafted tokens (the
*path*). Positions ``< sent`` are on their way through the chain or held by it. The model at position
``i`` predicts position ``i + 1``, so judging starts with the answer at the last committed token::

    committed            path
    |p r o m p t|o u t|d1 d2 d3 ...
                     ^ sent up to here, or further

One frame in flight is the paper's synchronous scheme, an empty path is plain decoding, many frames
in flight are streaming. At a miss everything beyond is void: the epoch rises, and the next frame
starts where the chain's state is still right.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Decision, Rule
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.errors import SwarmError

MAX_IN_FLIGHT = 64  # frames: a long prompt must not fill every queue of the chain at once

FinishReason = Literal["stop", "length"]


class UnexpectedResult(SwarmError):
    """A result that answers no frame of ours: the chain's fault."""

    def __init__(self, got: tuple[int, int, int], expected: tuple[int, int, int] | None) -> None:
        super().__init__(got, expected)
        self.got, self.expected = got, expected

    def __str__(self) -> str:
        return f"the chain answered (start, count, tail) = {self.got} where {self.expected} was due"


@dataclass(frozen=True)
class Window:
    """Tokens to send at positions ``start ...``; the predictions of the last ``tail`` of them are wanted back."""

    epoch: int
    start: int
    tokens: tuple[int, ...]
    tail: int

    @property
    def key(self) -> tuple[int, int, int]:
        return self.start, len(self.tokens), self.tail


@dataclass
class Counts:
    """What happened so far, in tokens or loops."""

    loops: int = 0  # answers that decided something
    drafted: int = 0  # drafted tokens taken into the path
    accepted: int = 0  # of these, kept
    relaxed: int = 0  # of these, kept though the target would have said otherwise
    deficit_nats: float = 0.0  # what the relaxed ones cost together
    rejected: int = 0  # drafted tokens overruled by the target: at most one a loop, as those behind it are void
    key: int = 0  # of these, overruled because a key token was at stake
    flushes: int = 0  # misses that made positions held by the chain void
    judged_at: list[int] = field(default_factory=list)  # drafted tokens judged, by place since the last miss
    kept_at: list[int] = field(default_factory=list)  # of these, kept
    histogram: list[int] = field(default_factory=list)  # loops by the number of drafted tokens they kept

    def count_loop(self, kept: int) -> None:
        """Take note of an answer that decided something."""
        self.loops += 1
        self.histogram += [0] * (kept + 1 - len(self.histogram))
        self.histogram[kept] += 1

    def count(self, decision: Decision, place: int) -> None:
        """Take note of what became of a position that was the ``place``-th drafted one in a row."""
        if decision.drafted is None:
            return
        if place == len(self.judged_at):
            self.judged_at.append(0)
            self.kept_at.append(0)
        self.judged_at[place] += 1
        self.kept_at[place] += decision.kept
        self.accepted += decision.kept
        self.relaxed += decision.origin == "relaxed"
        self.deficit_nats += decision.deficit_nats
        self.rejected += not decision.kept
        self.key += decision.key and not decision.kept


class Decoder:
    """One generation.

    Args:
        prompt: at least one token id.
        rule: how drafted tokens are judged.
        shaping: penalties and biases, applied to the target's logits before they are judged.
        max_new_tokens: at least 1.
        stop_ids: tokens that end the text; drafts stop behind them.
        ends_text: told every committed token in order; True ends the text, as a stop token does.
        window: at most so many drafted tokens a frame; 0 is plain decoding. May be set between loops.
        chunk: at most so many tokens a frame; longer prompts are cut, and the cuts do not wait for each other.
        depth: frames in flight at most that wait for a judgement; prompt chunks before the last don't count.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        rule: Rule,
        *,
        max_new_tokens: int,
        shaping: Shaping = NO_SHAPING,
        stop_ids: frozenset[int] = frozenset(),
        ends_text: Callable[[int], bool] = lambda _: False,
        window: int = 0,
        chunk: int = 256,
        depth: int = 1,
    ) -> None:
        if not prompt or max_new_tokens < 1 or window < 0 or chunk <= window or depth < 1:
            raise ValueError("prompt, max_new_tokens, chunk > window >= 0 and depth must be positive")
        self.rule, self.shaping, self.stop_ids, self._ends_text = rule, shaping, stop_ids, ends_text
        self.window, self.chunk, self.depth = window, chunk, depth
        self.tokens = list(prompt)
        self.path: list[Drafted] = []
        self.epoch = 0
        self.sent = 0
        self.counts = Counts()
        self.finish_reason: FinishReason | None = None
        self._run = 0  # drafted tokens kept in a row
        self._limit = len(prompt) + max_new_tokens
        self._in_flight: deque[Window] = deque()

    # Drafting.

    @property
    def room(self) -> int:
        """How many tokens may be drafted now, after ``tokens + path``."""
        if self.finish_reason or self._busy or (self.path and self.path[-1].token in self.stop_ids):
            return 0
        unsent = len(self.tokens) + len(self.path) - max(self.sent, len(self.tokens))
        # The last token of the text need not be drafted: the target's answer to the one before brings it.
        useful = self._limit - 1 - len(self.tokens) - len(self.path)
        return max(0, min(self.window - unsent, useful))

    @property
    def sequence(self) -> list[int]:
        """The tokens that the next draft continues: committed and drafted ones."""
        return [*self.tokens, *(drafted.token for drafted in self.path)]

    def propose(self, drafted: Sequence[Drafted]) -> None:
        """Lengthen the path by drafted tokens, at most `room`; nothing behind a stop token is taken."""
        for guess in drafted[: self.room]:
            self.path.append(guess)
            self.counts.drafted += 1
            if guess.token in self.stop_ids:
                break

    # Sending.

    def next_window(self) -> Window | None:
        """The next frame to send, or None if the chain has to answer first (or all is said)."""
        committed = len(self.tokens)
        if self.finish_reason or self._busy:
            return None
        end = committed + len(self.path)
        if self.sent == end:
            return None
        if committed - self.sent > self.chunk:
            end, tail = self.sent + self.chunk, 0
        else:
            end = min(end, self.sent + self.chunk)
            tail = end - max(self.sent, committed - 1)
        window = Window(self.epoch, self.sent, tuple(self.sequence[self.sent : end]), tail)
        self.sent = end
        self._in_flight.append(window)
        return window

    @property
    def _busy(self) -> bool:
        """Whether the chain has to answer before more may be sent."""
        judged = sum(window.tail > 0 for window in self._in_flight)
        return judged >= self.depth or len(self._in_flight) >= MAX_IN_FLIGHT

    # Judging.

    def receive(self, epoch: int, start: int, count: int, logits: Tensor) -> list[Decision]:
        """Judge the chain's answer to a frame; returns what it commits, in order.

        Args:
            logits: ``[tail, vocabulary]``, the predictions at the frame's last ``tail`` positions.

        Raises:
            UnexpectedResult: if no such frame is due. Answers of an older epoch are stale and ignored.
        """
        if epoch < self.epoch or self.finish_reason:
            return []
        got = (start, count, logits.shape[0])
        due = self._in_flight[0] if self._in_flight else None
        if due is None or epoch != due.epoch or got != due.key:
            raise UnexpectedResult(got, due.key if due else None)
        self._in_flight.popleft()
        if not due.tail:
            return []
        drafted = self.path[: due.tail]
        shaped = self.shaping.apply(logits, self.tokens, [guess.token for guess in drafted])
        committed = []
        for decision in self.rule.judge(shaped, self.tokens, drafted):
            committed.append(decision)
            self._commit(decision)
            if self.finish_reason:
                break
        self.counts.count_loop(sum(decision.kept for decision in committed))
        return committed

    def _commit(self, decision: Decision) -> None:
        """The one place where the sequence grows and the chain's state is declared void."""
        self.tokens.append(decision.token)
        self.counts.count(decision, self._run)
        if decision.kept:
            self._run += 1
            self.path.pop(0)
        else:
            self._run = 0
            self.path.clear()
            valid = len(self.tokens) - 1  # the chain never saw the token that was just chosen
            if self.sent > valid:
                self.sent, self.epoch = valid, self.epoch + 1
                self._in_flight.clear()
                self.counts.flushes += 1
        ended = self._ends_text(decision.token)
        if ended or decision.token in self.stop_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._limit:
            self.finish_reason = "length"
