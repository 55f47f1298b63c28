"""The decoding loop as a pure state machine: what to draft, what to send, what is committed, when
to flush.

The text is the prompt and what was generated; its last token is the *tip* of a tree of drafted
tokens (`swarm.decoding.draft_tree`), which several sources grow (`Source`). What is sent is on its
way through the chain or held by it, under serial numbers (`swarm.wire.token_tree`). The target's
answer at a token predicts what follows it, so judging goes on as long as the tip has an answer::

    p r o m p t o u t|d1 d2 d3 ...      the main line: the likeliest first choices
                    ^|   e3 e4 ...      a second choice, or what another source guesses
                   tip

One window in flight is the synchronous scheme of DSD (arXiv 2511.11733), an empty tree is plain
decoding, many windows in flight are streaming. A rule decides on a token by one first choice alone.
If the decided token was sent ahead, as that choice or as another one, the stream goes on; otherwise
all that was sent ahead is void, and the epoch rises.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Literal

from torch import Tensor

from swarm.decoding.ask import Ask, next_ask
from swarm.decoding.calibration import Calibration
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.confidence import Confidence
from swarm.decoding.counts import Counts
from swarm.decoding.doubt import settled, sure_beginning
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.drafting.lawful import lawful
from swarm.decoding.feature_book import FeatureBook
from swarm.decoding.learning import learn
from swarm.decoding.policy import MAX_DEPTH, SpeculationPlan
from swarm.decoding.rules.rule import Decision, Rule
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.decoding.token_stream import TokenStream
from swarm.decoding.verifier import Verifier
from swarm.decoding.windows import NOTHING_HELD, ResumePoint, Window

MAX_TREE = 512  # living nodes behind the tip, most of them second choices that are never sent
MAX_SENT_AHEAD = 128  # of these, those that were sent: sessions reserve room for them

FinishReason = Literal["stop", "length", "swarm_incomplete"]


class Decoder:
    """One generation. Set `plan` at any time; the default decodes plainly.

    Args:
        prompt: at least one token id.
        rule: judges drafted tokens.
        shaping: penalties, biases and masks, applied to the target's logits before they are judged.
            Nothing is drafted that a mask bans.
        max_new_tokens: at least 1.
        stop_ids: tokens that end the text; nothing is drafted behind them.
        ends_text: called with every committed token in order; True ends the text, as a stop token
            does.
        confidence: estimates the chance that drafts are accepted; it learns.
        chunk: the most tokens of a window; longer prompts are cut, and the cuts do not wait for
            each other.
        held: what the chain holds of the prompt already: its beginning, but not all of it.
        book: of the target's answers, where a drafter reads them.

    Attributes:
        sources: which may be asked, the cheapest first. May be changed at any time.
        correction: learns from the drafts that were decided; None learns nothing.
        calibration: of a head that reads the target's states; None without one.
        verifier: decides by the rule and the shaping.
        undecided: the node of whose prediction too little was told for the next decision.
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
        confidence: Confidence | None = None,
        chunk: int = 256,
        held: ResumePoint = NOTHING_HELD,
        book: FeatureBook | None = None,
    ) -> None:
        if not prompt or max_new_tokens < 1 or chunk < 2:
            raise ValueError(
                "give a prompt, max_new_tokens of at least 1, and chunks of at least 2"
            )
        if held.tokens != tuple(prompt[: min(len(held.tokens), len(prompt) - 1)]):
            raise ValueError("the prompt has to go on from what is held")
        self.verifier = Verifier(rule, shaping)
        self.undecided: DraftNode | None = None
        self.stop_ids = stop_ids
        self._ends_text = ends_text
        self.confidence = Confidence() if confidence is None else confidence
        self.correction: Correction | None = None
        self.calibration: Calibration | None = None
        self.chunk = chunk
        self.sources: tuple[Source, ...] = (Source.MODEL,)
        self.plan = SpeculationPlan()
        self.tokens = list(prompt)
        self.tree = DraftTree(DraftNode(prompt[-1], len(prompt) - 1))
        self.counts = Counts()
        self.finish_reason: FinishReason | None = None
        self._limit = len(prompt) + max_new_tokens
        self.book = book
        answered_from = None if book is None else book.answered_from(len(prompt))
        self._stream = TokenStream(prompt[len(held.tokens) : -1], held, answered_from)
        self._run = 0  # drafted tokens accepted in a row
        self._asked: Ask | None = None
        self._decided: list[Decision] = []  # by the last answer, while more is wanted of it

    @property
    def epoch(self) -> int:
        """Of the next window; it rises when all that was sent ahead becomes void."""
        return self._stream.epoch

    @property
    def streams(self) -> bool:
        """Whether windows are sent while others are in flight."""
        return self.plan.depth > 1

    @property
    def urgent(self) -> bool:
        """Whether the text left the path that the chain was sent, and the chain must be told."""
        return not self.tree.tip.serial and self.finish_reason is None

    @property
    def pause_ms(self) -> float:
        """The least time between the last window and the next one."""
        return max(
            self.plan.pace_ms,
            min(self.plan.calm_ms, self.plan.pace_ms * (1 + self._stream.windows_ahead)),
        )

    # Drafting.

    def ask(self) -> Ask | None:
        """Return what a source should draft now, if anything.

        The cheapest source goes first, as long as there is something to ask it. The answer goes to
        `propose`, even an empty one.
        """
        if self.book is not None:
            self.book.reopen()
        ask = self._next_ask()
        if ask is not None and self.book is not None and ask.source is Source.FEATURES:
            ask = replace(ask, features=self.book.take(self.tree))
        self._asked = ask or self._asked
        return ask

    def propose(self, ask: Ask, drafted: Sequence[Sequence[Drafted]]) -> None:
        """Let drafted tokens follow the nodes of ``ask``, in their order.

        At most ``ask.count`` tokens are taken for a node, and none behind a stop token. Nodes at
        the end for which ``drafted`` has no entry get none. If ``ask`` was withdrawn, all are
        dropped.
        """
        if ask is not self._asked:
            return
        self._asked = None
        for node, lag, line in zip(ask.nodes, ask.lags, chain(drafted, repeat(())), strict=False):
            if node.alive and not self.finish_reason:  # else the text went elsewhere meanwhile
                if not line and self.book is not None and ask.source is Source.FEATURES:
                    self.book.beyond(node)
                self._grow(node, line[: min(ask.count, self._room(node))], ask.source, lag)

    def withdraw(self) -> None:
        """Forget what was asked: the drafter will not answer, and may be asked the same again."""
        if self._asked is not None and self.book is not None:
            self.book.give_back()
        self._asked = None

    def _grow(self, node: DraftNode, line: Sequence[Drafted], source: Source, lag: int) -> None:
        plan = self.plan
        stop = next((i for i, each in enumerate(line, 1) if each.token in self.stop_ids), None)
        line = line[:stop]
        if masks := self.verifier.shaping.masks:
            line = lawful(masks, self._answer(node), line)
        if plan.branches == 1 and self.sources[-1:] != (source,):
            # The chain takes one token for a place: the first source that guesses one has it.
            line = sure_beginning(line, lag, self.confidence)
        self.counts.drafted += self.tree.grow(
            node,
            line,
            self.confidence,
            source=source,
            branches=plan.branches,
            lag=lag,
            least_chance=plan.least_chance,
        )

    def _answer(self, node: DraftNode) -> list[int]:
        """Return the tokens behind the prompt, up to and including a node."""
        written = self.tokens[self.verifier.shaping.prompt_tokens :]
        return [*written, *self.tree.path(node)]

    def _next_ask(self) -> Ask | None:
        if self.finish_reason or self._asked or not self.plan.window or self._waits:
            return None
        if len(self.tree.nodes) >= MAX_TREE:
            return None
        asks = (
            next_ask(source, self.tree, self.plan, self.tokens, self._room)
            for source in self.sources
        )
        return next(filter(None, asks), None)

    def _room(self, node: DraftNode) -> int:
        """Return how many tokens may be drafted behind a node."""
        # The last token of the text need not be drafted: the target's answer at the token before it
        # decides it.
        return 0 if node.token in self.stop_ids else max(0, self._limit - 2 - node.position)

    # Sending.

    def next_window(self) -> Window | None:
        """Return the next window to send; None if the chain or the drafter has to answer first, or
        the text has ended."""
        if self.finish_reason or self._waits:
            return None
        unread = len(self._stream.unread)
        if unread >= self.chunk:
            return self._send(self.chunk, ())
        if not self.streams and (self._asked or self._next_ask()):
            return None
        nodes = self._sendable()[: self.chunk - unread]
        return self._send(unread, nodes) if nodes else None

    @property
    def _waits(self) -> bool:
        """Whether the chain has to answer before more may be sent."""
        stream = self._stream
        return stream.asking >= self.plan.depth or stream.in_flight >= MAX_DEPTH

    def _sendable(self) -> list[DraftNode]:
        """Return the tip, if the chain does not hold it, and the likeliest drafted tokens; parents
        come first."""
        tip = self.tree.tip
        room = MAX_SENT_AHEAD - self.tree.sent
        likely = self.tree.likely(self.tree.unsent, self.plan.least_chance)
        unsent = list(settled(likely, self.sources))
        # no token is likelier than its parent, and the sort is stable
        unsent.sort(key=lambda node: -node.log_chance)
        return [tip] * (not tip.serial) + unsent[: max(0, min(self.plan.window, room))]

    def _send(self, unread: int, nodes: Sequence[DraftNode]) -> Window:
        window = self._stream.send(self.tree, nodes, unread)
        if self.book is not None:
            self.book.sent(window, nodes)
        if nodes:
            if nodes[0] is self.tree.tip:
                self.counts.waits += 1
                self.counts.held += 1
            self.counts.count_frame(len(nodes), self._stream.in_flight)
        return window

    def resume(self) -> ResumePoint:
        """Begin a newer epoch because a peer has lost everything; return what the peer that takes
        its place has to hold.

        All that was not answered is void, and will be sent again. Drafts stay; what a drafter was
        asked is withdrawn. The other peers hold what was answered: once there was an answer, every
        token of the text but the last one.
        """
        self.withdraw()
        self.counts.held -= bool(self.tree.tip.serial)  # it will be sent, and counted, once more
        self.tree.unsend()
        if not self.counts.loops:
            return self._stream.restart(self.tokens[:-1])
        return self._stream.resume(self.tokens[:-1])

    @property
    def held(self) -> ResumePoint | None:
        """What all peers hold once the text has ended, for another text that goes on from there;
        None before there was an answer."""
        if not self.counts.loops:
            return None
        held = self._stream.held(self.tokens[:-1])
        if self.book is None:
            return held
        return replace(held, features=self.book.held(len(held.tokens)))

    # Judging.

    def take(self, windows: Iterable[Window]) -> list[tuple[int, DraftNode]]:
        """Take the chain's answer to some windows, in the order in which they were sent.

        Return which rows of the answer are worth judging, and their nodes: those that the text may
        still get to. Hand them to `judge` before the next answer is taken. The answer has a row for
        each of the windows' tails; those of a window that became void are worth nothing.
        """
        rows = self._stream.answered(windows)
        return [] if self.finish_reason else rows

    def judge(
        self,
        answered: Sequence[DraftNode],
        logits: Tensor | Sequence[Tensor | None],
        hidden: Tensor | None = None,
        choices: Sequence[int | None] = (),
    ) -> list[Decision]:
        """Judge drafted tokens by the target's answers; return what is committed, in order.

        Args:
            answered: the nodes that `take` returned, or the one that was `wanted`.
            logits: ``[len(answered), vocabulary]``, the predictions of what follows each; None
                where only the choice is known.
            hidden: ``[len(answered), hidden]``, returned with what is decided by them.
            choices: the target's choice of what follows each, where it is known.
        """
        for node, row in zip(answered, logits, strict=True):
            node.logits = row
        for node, choice in zip(answered, choices, strict=False):
            node.choice = choice
        for node, row in zip(answered, () if hidden is None else hidden, strict=False):
            node.hidden = row
        return self._judge()

    def judge_told(
        self, answered: Sequence[DraftNode], told: Sequence[CandidateRow]
    ) -> list[Decision]:
        """Judge as `judge` does, by parts of the predictions.

        Where such a part does not decide, judging stops, and `undecided` is its node. It goes on
        when that node is given a fuller part.

        Args:
            answered: the nodes that `take` returned, or the one that was `undecided`.
        """
        for node, row in zip(answered, told, strict=True):
            node.told = row
        return self._judge()

    def _judge(self) -> list[Decision]:
        committed: list[Decision] = []
        self.undecided = None
        while not self.finish_reason and (decisions := self._decide_at_tip()):
            for decision in decisions:
                committed.append(self._commit(decision))
                if self.finish_reason:
                    break
        self._decided += committed
        if self._decided and self.wanted is None and self.undecided is None:
            self.counts.count_loop(sum(decision.kept for decision in self._decided))
            self._decided = []
        return committed

    @property
    def wanted(self) -> DraftNode | None:
        """The node whose logits the rule needs to go on, where only the choice is known.

        Hand them to `judge`: what it then returns is decided by the same answer as before.
        """
        tip = self.tree.tip
        if tip.choice is None or self.finish_reason or self.verifier.may_judge(tip):
            return None
        return tip

    def _decide_at_tip(self) -> list[Decision]:
        """Judge what follows the tip as far as it can be judged now."""
        tip = self.tree.tip
        decisions = self.verifier.decide(tip, self.tokens)
        self.undecided = tip if tip.told is not None and not decisions else None
        return decisions

    def _commit(self, decision: Decision) -> Decision:
        """Append a token to the text. Only here the text grows, and what was sent ahead becomes
        void."""
        tip = self.tree.tip
        learn(tip, decision.token, self.confidence, self.counts, self.correction, self.calibration)
        sent_ahead = any(child.serial for child in tip.children)
        self._stream.root = tip.serial
        tip = self.tree.advance(decision.token)
        decision = replace(decision, branch=bool(tip.serial) and not decision.kept)
        self.tokens.append(decision.token)
        self.counts.count(decision, self._run)
        self._run = self._run + 1 if decision.kept else 0
        if tip.serial:
            self.counts.held += 1
        elif sent_ahead:
            self._stream.flush()
            self.counts.flushes += 1
        ended = self._ends_text(decision.token)
        if ended or decision.token in self.stop_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._limit:
            self.finish_reason = "length"
        return decision
