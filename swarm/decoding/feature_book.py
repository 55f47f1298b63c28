"""The target's answers to one text, kept for a drafter that reads them."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.feature import Feature, TappedToken
from swarm.decoding.windows import Window

# More than a tree and a prompt's end. If a drafter is not asked for as long, the oldest are lost.
MAX_KEPT = 1024
MAX_BYTES = 1 << 26  # of the same: for all of them at 16,384 values each
VALUE_BYTES = 4
# The answer at a text's very first token is not wanted for a drafter: in many models it has a size
# of its own, which is not what a client takes for plausible.
FIRST_ANSWERED = 1


@dataclass(eq=False, slots=True)
class _Answer:
    """An answer, and whether the drafter has it."""

    at: DraftNode | int  # a node, or the position of a token of the text
    output: Tensor
    given: bool = False

    @property
    def position(self) -> int:
        return self.at if isinstance(self.at, int) else self.at.position

    @property
    def kept(self) -> bool:
        """Whether the token is part of the text."""
        return isinstance(self.at, int) or self.at.kept


class FeatureBook:
    """Answers come in, and each goes to the drafter once.

    The nodes of tokens that are part of the text are let go when the drafter is asked: each may
    hold a prediction over the whole vocabulary. What the drafter has is forgotten then, too, but
    for the last positions where another text may go on.

    At most `MAX_KEPT` answers are kept, and `MAX_BYTES` of them.

    Args:
        count: how many positions of a prompt's end are answered, and of a text's end kept for
            another one that goes on from there; fewer if they do not fit.
        known: features of the beginning of the prompt.
        taps: layers whose outputs come in place of answers (`tapped`); none for answers.
        alone: the only tap is the last layer, whose outputs are what answers would be.
        width: values of one answer, of all taps together.
        goes_on: another text may go on from this one (`held`).
    """

    def __init__(
        self,
        count: int,
        known: Iterable[Feature] = (),
        taps: tuple[int, ...] = (),
        alone: bool = False,
        width: int = 1,
        goes_on: bool = True,
    ) -> None:
        most = max(1, min(MAX_KEPT, MAX_BYTES // (VALUE_BYTES * width)))
        self.count = min(count, most)
        self.taps = taps
        self._alone = alone
        self._goes_on = goes_on
        # Of tokens whose outputs are awaited, by serial: where they lie in the text.
        self._places: dict[int, DraftNode | int] = {}
        self._answers: deque[_Answer] = deque(maxlen=most)
        self._answers += (_Answer(each.position, each.output) for each in known)
        self._lent: list[_Answer] = []  # given by the last `take`
        self._beyond: list[DraftNode] = []
        self._closed = False

    def answered_from(self, prompt: int) -> int:
        """Return the first position of a prompt of so many tokens that is worth an answer."""
        return max(FIRST_ANSWERED, prompt - self.count)

    def prompt(self, windows: Sequence[Window], outputs: Tensor) -> None:
        """Note the answers ``[rows, hidden]`` to some windows, as far as they are the prompt's."""
        if self.taps or self._closed:
            return
        for row, position in _prompt_rows(windows):
            self._answers.append(_Answer(position, outputs[row].clone()))

    def answered(self, nodes: Sequence[DraftNode], outputs: Tensor) -> None:
        """Note the answers ``[len(nodes), hidden]`` at some nodes."""
        if self.taps or self._closed:
            return
        for node, output in zip(nodes, outputs, strict=True):
            # A copy: a view of the row would keep the whole answer.
            self._answers.append(_Answer(node, output.clone()))

    def sent(self, window: Window, nodes: Sequence[DraftNode]) -> None:
        """Note where the tokens of a window lie whose outputs will be told.

        Args:
            nodes: its last tokens; the others are the prompt's.
        """
        if not self.taps or self._closed:
            return
        prompt = len(window.tokens) - len(nodes)
        for index in range(prompt - window.features, prompt):
            self._places[window.first + index] = window.position + index
        self._places |= {node.serial: node for node in nodes}
        for serial in list(self._places)[:-MAX_KEPT]:
            del self._places[serial]

    def tapped(self, tokens: Iterable[TappedToken]) -> None:
        """Note what the tapped layers gave at some tokens that were sent."""
        for token in tokens:
            at = self._places.pop(token.serial, None)
            if at is not None:
                output = token.outputs[0] if self._alone else token.outputs
                self._answers.append(_Answer(at, output))

    def beyond(self, node: DraftNode) -> None:
        """Note that the drafter had no guess behind a node.

        It guesses so far behind what it knows of the target, and no further.
        """
        self._beyond = [*(each for each in self._beyond if each.alive), node]

    def reopen(self) -> None:
        """Have the drafter asked there again, if something has come that it does not have."""
        if self._beyond and any(not each.given for each in self._answers):
            for node in self._beyond:
                node.asked.discard(Source.FEATURES)
            self._beyond.clear()

    def take(self, tree: DraftTree) -> tuple[Feature, ...]:
        """Return what the drafter does not have, where ``tree`` is behind the text."""
        kept_from = tree.tip.position + 1 - self.count if self._goes_on else tree.tip.position + 1
        living = [
            each
            for each in self._answers
            if _lives(each.at) and (not each.given or each.position >= kept_from)
        ]
        for each in living:
            each.at = _settled(each.at)
        self._answers.clear()
        self._answers += living
        self._places = {serial: _settled(at) for serial, at in self._places.items() if _lives(at)}
        self._lent = [each for each in living if not each.given]
        for each in self._lent:
            each.given = True
        return tuple(Feature(each.position, _path(each, tree), each.output) for each in self._lent)

    def give_back(self) -> None:
        """Note that the drafter may not have got what the last `take` returned."""
        for each in self._lent:
            each.given = False

    def close(self) -> None:
        """Forget everything, and note nothing any more: no drafter reads it."""
        self._closed = True
        self._answers.clear()
        self._places.clear()
        self._beyond.clear()
        self._lent = []

    def held(self, length: int) -> tuple[Feature, ...]:
        """Return the features of the last positions of a text's first ``length`` tokens, without a
        gap, the first position first."""
        known = {each.position: each.output for each in self._answers if each.kept}
        start = length
        while start - 1 in known and length - start < self.count:
            start -= 1
        return tuple(Feature(each, (), known[each]) for each in range(start, length))


def _prompt_rows(windows: Sequence[Window]) -> Iterator[tuple[int, int]]:
    """Yield the rows of an answer that belong to a prompt, and their positions."""
    start = 0
    for window in windows:
        end = window.position + len(window.tokens) - (window.tail - window.features)
        for row in range(window.features):
            yield start + row, end - window.features + row
        start += window.tail


def _lives(at: DraftNode | int) -> bool:
    """Return whether a token is part of the text, or may become it."""
    return isinstance(at, int) or at.kept or at.alive


def _settled(at: DraftNode | int) -> DraftNode | int:
    """Return the position of a token that is part of the text, in place of its node."""
    return at.position if isinstance(at, DraftNode) and at.kept else at


def _path(answer: _Answer, tree: DraftTree) -> tuple[int, ...]:
    if isinstance(answer.at, int) or answer.kept:
        return ()
    return tuple(tree.path(answer.at))
