"""The decoding loop as a pure state machine: what to draft, what to send, what is committed, when
to flush.

The text is the prompt and what was generated; its last token is the *tip* of a tree of drafted
tokens. What is sent is on its way through the chain or held by it, under serial numbers
(`swarm.wire.token_tree`). The model's answer at a token says what follows it, so judging goes on as
long as the tip has an answer::

    p r o m p t o u t|d1 d2 d3 ...      the main line: the draft's first choices
                    ^|   e3 e4 ...      where it was unsure, its second choice too
                   tip

One frame in flight is the paper's synchronous scheme, an empty tree is plain decoding, many frames
in flight are streaming. A rule decides on the token by the draft's first choice alone. If that
token was sent ahead, be it as the first or as another choice, the stream goes on; else all that was
sent ahead is void: the epoch rises.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import chain, repeat
from typing import Literal

import torch
from torch import Tensor

from swarm.decoding.confidence import Confidence
from swarm.decoding.counts import Counts
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.policy import MAX_DEPTH, SpeculationPlan
from swarm.decoding.rules.rule import Decision, Rule
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.decoding.tree import Node, Tree
from swarm.errors import RemoteViolation

MAX_TREE = 512  # living tokens behind the tip, most of them other choices that are never sent
MAX_SENT_AHEAD = 128  # of these, that the chain holds or is sent: sessions reserve room for them

FinishReason = Literal["stop", "length", "swarm_incomplete"]


@dataclass(eq=False)
class UnexpectedResult(RemoteViolation):
    """A result that answers no frame of ours: the chain's fault."""

    got: tuple[int, int, int]
    expected: tuple[int, int, int] | None

    def __str__(self) -> str:
        return f"the chain answered (first, count, tail) = {self.got} where {self.expected} was due"


@dataclass(frozen=True)
class Window:
    """Tokens to send under the serials ``first ...``; the predictions of the last ``tail`` of them
    are wanted back.

    ``epoch``, ``root`` and ``parents`` are those of `swarm.wire.token_tree`. ``position`` is the
    first token's in the text.
    """

    epoch: int
    root: int
    first: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...] | None
    tail: int
    position: int


@dataclass(frozen=True)
class Ask:
    """What to draft next: at most ``count`` tokens behind each of some nodes.

    Attributes:
        nodes: at least one, the likeliest first.
        text: what is committed.
        paths: the tokens behind the text up to each of the nodes, its own included: none up to the
            tip.
    """

    nodes: tuple[Node, ...]
    text: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    count: int


@dataclass(frozen=True)
class Resume:
    """What a peer has to hold so that the text can go on: ``tokens``, of which the last one has the
    serial ``root``.

    ``epoch`` is that of the next window.
    """

    epoch: int
    root: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Held:
    """What all peers hold of a text that has ended: ``tokens``, of which the last one has the
    serial ``root``.

    Another text that begins with these tokens can go on from there: its first window has this
    ``epoch``, and its serials follow the ``last`` one that was given.
    """

    epoch: int
    root: int
    last: int
    tokens: tuple[int, ...]


NOTHING_HELD = Held(epoch=0, root=0, last=0, tokens=())


@dataclass(frozen=True)
class _Sent:
    window: Window
    nodes: tuple[Node, ...]  # whose answers are wanted


class Decoder:
    """One generation. Set `plan` at any time; the default decodes plainly.

    Args:
        prompt: at least one token id.
        rule: how drafted tokens are judged.
        shaping: penalties and biases, applied to the target's logits before they are judged.
        max_new_tokens: at least 1.
        stop_ids: tokens that end the text; nothing is drafted behind them.
        ends_text: told every committed token in order; True ends the text, as a stop token does.
        confidence: how likely drafts are kept; it learns.
        chunk: at most so many tokens a frame; longer prompts are cut, and the cuts do not wait for
            each other.
        held: what the chain holds of the prompt already: its beginning, but not all of it.
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
        held: Held = NOTHING_HELD,
    ) -> None:
        if not prompt or max_new_tokens < 1 or chunk < 2:
            raise ValueError(
                "give a prompt, max_new_tokens of at least 1, and chunks of at least 2"
            )
        if held.tokens != tuple(prompt[: min(len(held.tokens), len(prompt) - 1)]):
            raise ValueError("the prompt has to go on from what is held")
        self.rule, self.shaping, self.stop_ids, self._ends_text = rule, shaping, stop_ids, ends_text
        self.confidence = Confidence() if confidence is None else confidence
        self.chunk = chunk
        self.plan = SpeculationPlan()
        self.tokens = list(prompt)
        self.tree = Tree(Node(prompt[-1], len(prompt) - 1))
        self.epoch = held.epoch
        self.counts = Counts()
        self.finish_reason: FinishReason | None = None
        # Of the prompt, what was not sent yet; its last token is the tip.
        self._unread = list(prompt[len(held.tokens) : -1])
        self._limit = len(prompt) + max_new_tokens
        # Serial of the last token that every peer will hold whatever fails: the last one of the
        # text that was answered, and before there is one, the end of the last whole chunk of the
        # prompt.
        self._root = held.root
        self._serial = held.last  # the last one given
        self._run = 0  # drafted tokens kept in a row
        self._frames_ahead = 0  # sent since the text took a turn
        self._in_flight: deque[_Sent] = deque()
        self._asked: Ask | None = None

    @property
    def streams(self) -> bool:
        """Whether frames are sent while others are on their way."""
        return self.plan.depth > 1

    @property
    def urgent(self) -> bool:
        """Whether the text took a turn that the chain does not know of yet."""
        return not self.tree.tip.serial and self.finish_reason is None

    @property
    def pause_ms(self) -> float:
        """To leave between the last frame and the next one."""
        return max(
            self.plan.pace_ms, min(self.plan.calm_ms, self.plan.pace_ms * (1 + self._frames_ahead))
        )

    # Drafting.

    def ask(self) -> Ask | None:
        """What a drafter should be asked now, if anything.

        The answer goes to `propose`, even if it is nothing.
        """
        ask = self._next_ask()
        self._asked = ask or self._asked
        return ask

    def propose(self, ask: Ask, drafted: Sequence[Sequence[Drafted]]) -> None:
        """Let drafted tokens follow the nodes of ``ask``, in their order, at most as many behind
        each as were asked for; nothing behind a stop token is taken. Where nothing is said of the
        last nodes, nothing follows them. What is proposed to a question that was withdrawn is
        dropped."""
        if ask is not self._asked:
            return
        self._asked = None
        for node, guesses in zip(ask.nodes, chain(drafted, repeat(())), strict=False):
            if node.alive and not self.finish_reason:  # else the text took another turn meanwhile
                self._grow(node, guesses[: ask.count])

    def withdraw(self) -> None:
        """Whoever was asked what to draft will not answer: the same may be asked again."""
        self._asked = None

    def _grow(self, node: Node, guesses: Sequence[Drafted]) -> None:
        stop = next(
            (i for i, guess in enumerate(guesses, 1) if guess.token in self.stop_ids), len(guesses)
        )
        self.counts.drafted += stop
        self.tree.grow(node, guesses[:stop], self.plan.branches, self.confidence)

    def _next_ask(self) -> Ask | None:
        if self.finish_reason or self._asked or not self.plan.window or self._waits:
            return None
        likely = self.tree.likely(self.tree.open, self.plan.least_chance)
        leaves, count = (
            (self.plan.leaves, 1) if self.streams else (1, self.plan.window - len(self.tree.nodes))
        )
        nodes = nlargest(leaves, filter(self._may_grow, likely), key=lambda node: node.reach)
        if not nodes or count < 1 or len(self.tree.nodes) >= MAX_TREE:
            return None
        paths = tuple(tuple(self.tree.path(node)) for node in nodes)
        return Ask(
            tuple(nodes), tuple(self.tokens), paths, min(count, self._limit - 2 - nodes[0].position)
        )

    def _may_grow(self, node: Node) -> bool:
        # The last token of the text need not be drafted: the target's answer to the one before it
        # brings it.
        return node.position < self._limit - 2 and node.token not in self.stop_ids

    # Sending.

    def next_window(self) -> Window | None:
        """The next frame to send, or None if the chain or the drafter has to answer first (or all
        is said)."""
        if self.finish_reason or self._waits:
            return None
        if len(self._unread) >= self.chunk:
            return self._send(self.chunk, ())
        if not self.streams and (self._asked or self._next_ask()):
            return None
        nodes = self._sendable()[: self.chunk - len(self._unread)]
        return self._send(len(self._unread), nodes) if nodes else None

    @property
    def _waits(self) -> bool:
        """Whether the chain has to answer before more may be sent."""
        judged = sum(bool(sent.nodes) for sent in self._in_flight)
        return judged >= self.plan.depth or len(self._in_flight) >= MAX_DEPTH

    def _sendable(self) -> list[Node]:
        """The tip, if the chain does not know it, and the likeliest of the drafted tokens; parents
        come first."""
        tip, room = self.tree.tip, MAX_SENT_AHEAD - self.tree.sent
        unsent = self.tree.likely(self.tree.unsent, self.plan.least_chance)
        # no token is likelier than its parent, and the sort is stable
        unsent.sort(key=lambda node: -node.reach)
        return [tip] * (not tip.serial) + unsent[: max(0, min(self.plan.window, room))]

    def _send(self, unread: int, nodes: Sequence[Node]) -> Window:
        """Give serials to so many unread tokens of the prompt and to ``nodes``, and count them as
        in flight."""
        first, root = self._serial + 1, self._root
        parents = [first - root, *[1] * (unread - 1)] if unread else []
        position = len(self.tokens) - 1 - len(self._unread) if unread else nodes[0].position
        self._serial += unread
        before = self._serial if unread else root  # what the tip follows
        self.tree.send(nodes, self._serial + 1)
        for node in nodes:
            self._serial += 1
            parents.append(self._serial - (before if node.parent is None else node.parent.serial))
        self._frames_ahead += 1
        if nodes and nodes[0] is self.tree.tip:
            self._frames_ahead = 0
            self.counts.waits += 1
            self.counts.held += 1
        tokens = (*self._unread[:unread], *(node.token for node in nodes))
        del self._unread[:unread]
        follows = all(distance == 1 for distance in parents)
        window = Window(
            self.epoch,
            root,
            first,
            tokens,
            None if follows else tuple(parents),
            len(nodes),
            position,
        )
        self._in_flight.append(_Sent(window, tuple(nodes)))
        if not nodes:
            self._root = self._serial
        else:
            self.counts.count_frame(len(nodes), len(self._in_flight))
        return window

    def resume(self) -> Resume:
        """Some peer has forgotten everything: all that was not answered is void, and will be sent
        again. Drafts stay.

        What was answered lies with all other peers: every token before the last one, once there was
        an answer at all. A drafter that was asked something need not answer any more.
        """
        self.withdraw()
        self.epoch += 1
        self._in_flight.clear()
        self.counts.held -= bool(self.tree.tip.serial)  # it will be sent, and counted, once more
        self.tree.unsend()
        if not self.counts.loops:
            self._root, self._unread = 0, self.tokens[:-1]
            return Resume(self.epoch, 0, ())
        return Resume(self.epoch, self._root, tuple(self.tokens[:-1]))

    @property
    def held(self) -> Held | None:
        """What all peers hold once the text has ended; None before there was an answer."""
        return (
            Held(self.epoch + 1, self._root, self._serial, tuple(self.tokens[:-1]))
            if self.counts.loops
            else None
        )

    # Judging.

    def take(self, epoch: int, first: int, count: int, tail: int) -> list[tuple[int, Node]]:
        """Take the chain's answer to one frame or several consecutive ones: which of its ``tail``
        rows are worth judging, and whose they are. To be handed to `judge` before the next answer
        is taken.

        Raises:
            UnexpectedResult: if no such frames are due. Answers of an older epoch are stale and
                ignored.
        """
        if epoch < self.epoch or self.finish_reason:
            return []
        due: list[_Sent] = []
        while self._in_flight and sum(len(sent.window.tokens) for sent in due) < count:
            due.append(self._in_flight.popleft())
        nodes = [node for sent in due for node in sent.nodes]
        head = due[0].window if due else None
        expected = (
            (head.first, sum(len(sent.window.tokens) for sent in due), len(nodes)) if head else None
        )
        if head is None or head.epoch != epoch or expected != (first, count, tail):
            raise UnexpectedResult((first, count, tail), expected)
        return [(row, node) for row, node in enumerate(nodes) if node.alive]

    def judge(
        self, answered: Sequence[Node], logits: Tensor, hidden: Tensor | None = None
    ) -> list[Decision]:
        """What the target's answers commit, in order.

        Args:
            answered: the nodes that `take` gave.
            logits: ``[len(answered), vocabulary]``, the predictions of what follows each.
            hidden: ``[len(answered), hidden]``, to be told with what is decided by them.
        """
        for node, row in zip(answered, logits, strict=True):
            node.logits = row
        for node, row in zip(answered, () if hidden is None else hidden, strict=False):
            node.hidden = row
        committed: list[Decision] = []
        while self.tree.tip.logits is not None and not self.finish_reason:
            for decision in self._decide():
                committed.append(self._commit(decision))
                if self.finish_reason:
                    break
        if committed:
            self.counts.count_loop(sum(decision.kept for decision in committed))
        return committed

    def _decide(self) -> list[Decision]:
        """Judge the main line as far as the target has answered."""
        line = list(self.tree.tip.line())
        answered = next((i for i, node in enumerate(line) if node.logits is None), len(line))
        drafted = [node.drafted for node in line[1 : answered + 1] if node.drafted]
        rows = torch.stack([node.logits for node in line[:answered] if node.logits is not None])
        shaped = self.shaping.apply(
            rows, self.tokens, [guess.token for guess in drafted[: answered - 1]]
        )
        decisions = self.rule.judge(shaped, self.tokens, drafted)
        told = zip(decisions, shaped, line, strict=False)
        return [
            replace(each, logits=row, raw=node.logits, hidden=node.hidden)
            for each, row, node in told
        ]

    def _commit(self, decision: Decision) -> Decision:
        """The one place where the text grows and what was sent ahead is declared void."""
        choices = self.tree.tip.children
        place = next(
            (rank for rank, child in enumerate(choices) if child.token == decision.token), None
        )
        self.confidence.observe([child.sure for child in choices], place)
        sent_ahead = any(child.serial for child in choices)
        self._root = self.tree.tip.serial
        tip = self.tree.advance(decision.token)
        decision = replace(decision, branch=bool(place and tip.serial))
        self.tokens.append(decision.token)
        self.counts.count(decision, self._run)
        self._run = self._run + 1 if decision.kept else 0
        if tip.serial:
            self.counts.held += 1
        elif sent_ahead:
            self.epoch += 1
            self._in_flight.clear()
            self.counts.flushes += 1
        ended = self._ends_text(decision.token)
        if ended or decision.token in self.stop_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._limit:
            self.finish_reason = "length"
        return decision
