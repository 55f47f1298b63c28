"""Drafting with a head that reads the target's hidden states (`swarm.model.heads`).

For every token the head reads the token and a *feature*, which belongs to the token before it: the
target's answer there if it has come, else the head's own state, which stands for that answer. What
the head has read so lies in its cache in two parts::

    s e t t l e d   t e x t|t1 t2 t3 ...     in flight: read by states of the head
    read by true features  |      u3 u4 ...
                        root

An answer settles the tokens that it decides. They are read again by their true features, in one
pass with what leads from them to the next drafts, which is read by the states that the head had
there (the glue pass of Kumar et al. 2026, "Speculative speculative decoding", arXiv 2603.03251). So
attention sees the newer keys at once, and nothing is replayed token by token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from swarm.decoding.drafting.choices import Chooser, HeadDrafter
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.wire.token_tree import Placement

READ_TOKENS = 256  # of a text in a pass, whose memory grows with them
MAX_STEPS = 8  # passes for one path: tokens that others drafted are read one after the other

T = TypeVar("T")


class FeatureReader(Protocol):
    """A head with its own cache: one row for each token that it has read.

    Attributes:
        known: how many token ids there are embeddings of.
        context: the positions that the head was made for.
    """

    @property
    def known(self) -> int: ...

    @property
    def context(self) -> int: ...

    def enter(self, outputs: Tensor) -> Tensor:
        """Turn answers of the target ``[n, hidden]`` into features ``[n, width]``."""
        ...

    def read(self, tokens: Sequence[int], features: Tensor, placement: Placement) -> Tensor:
        """Read tokens, each by a feature ``[n, width]``, into the rows of ``placement``.

        Its positions are rotary positions: that of a token in the text, less one.

        Returns:
            The states ``[n, width]``, each of which may be the feature of a token behind it.
        """
        ...

    def logits(self, states: Tensor) -> Tensor:
        """Return what follows the tokens of some states, ``[n, head]`` float32, on the CPU."""
        ...


@dataclass(eq=False, slots=True)
class _Token:
    """A token of the text or behind it.

    Attributes:
        feature: the target's own, once it has answered here.
        state: the head's, once it has read the token.
        sees: while it is in flight, the rows behind the root that it attends to: bit ``i`` is the
            row ``i`` behind the root's. 0 for the root.
        era: of the drafter when it was read: it has a row as long as that lasts.
    """

    token: int
    position: int
    parent: "_Token | None" = None
    feature: Tensor | None = None
    state: Tensor | None = None
    sees: int = 0
    era: int = -1
    children: dict[int, "_Token"] = field(default_factory=dict)  # by token

    def child(self, token: int) -> "_Token":
        """Return what ``token`` is behind this one, which may be new."""
        found = self.children.get(token)
        if found is None:
            found = self.children[token] = _Token(token, self.position + 1, self)
        return found

    @property
    def read_by(self) -> Tensor | None:
        """The feature to read it by; None while neither the target nor the head has one."""
        assert self.parent is not None  # the root is not read again
        return self.parent.state if self.parent.feature is None else self.parent.feature


@dataclass(eq=False, slots=True)
class _Leaf:
    """A path behind the text, which grows by the drafted tokens."""

    tokens: list[int]
    end: _Token
    drafted: list[Drafted] = field(default_factory=list)


class FeatureDrafter(HeadDrafter):
    """Drafts by a head. Call `answered` before `draft_each` with what has become known.

    It drafts nothing until there are features of the text's end. Its cache begins where they
    begin, so a text that goes on costs no more than its features.

    Args:
        reader: one that has read nothing yet.
        chooser: its vocabulary turns the head's predictions into those of the target's tokens,
            which the head reads.
        prompt_features: how many positions of a prompt's end it is worth to have answered.
        taps: the layers of the target that the head reads; none for the last one's answers.
    """

    def __init__(
        self,
        reader: FeatureReader,
        chooser: Chooser,
        prompt_features: int = 512,
        taps: tuple[int, ...] = (),
    ) -> None:
        super().__init__(prompt_features, taps)
        self.reader = reader
        self.chooser = chooser
        self._root: _Token | None = None  # the last settled token
        self._text: list[int] = []  # the text up to the root
        self._waiting: dict[int, Tensor] = {}  # by position: features of tokens behind the root
        self._settled = 0  # rows of the cache up to the root, its own included
        self._rows = 0  # behind them
        self._era = 0  # a new one begins when tokens are settled

    @torch.inference_mode()
    def answered(self, text: Sequence[int], features: Sequence[Feature]) -> None:
        """Take what the target has answered since the last call; ``text`` is committed."""
        if not features:
            return
        entered = self.reader.enter(torch.stack([each.output for each in features]))
        goes_on = self._root is not None and self._goes_on(text)
        for each, feature in zip(features, entered, strict=True):
            if not each.path and each.position < self.reader.context:
                self._waiting[each.position] = feature
            elif each.path and goes_on:
                self._end(text, each.path).feature = feature

    @torch.inference_mode()
    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`.

        Drafts nothing beyond the head's context, nothing behind a stop token, nothing behind more
        than MAX_STEPS tokens that it has not read, and nothing while the target's answers at the
        end of the text are not known.
        """
        if count < 1 or len(text) >= self.reader.context:
            return [[] for _ in paths]
        settling = self._settle(text)
        if self._root is None:
            return [[] for _ in paths]
        leaves = [_Leaf(list(path), self._end(text, path)) for path in paths]
        growing = leaves
        for _ in range(count):
            growing = [leaf for leaf in growing if self._readable(leaf.end)]
            self._reach([leaf.end for leaf in growing], settling)
            settling = []
            growing = [leaf for leaf in growing if leaf.end.state is not None]
            if not growing:
                break
            states = torch.stack([_present(leaf.end.state) for leaf in growing])
            predicted = self.reader.logits(states)
            chosen = self.chooser.choose(predicted, text, [leaf.tokens for leaf in growing])
            for leaf, guess in zip(growing, chosen, strict=True):
                leaf.drafted.append(guess)
                leaf.tokens.append(guess.token)
                leaf.end = leaf.end.child(guess.token)
            growing = [leaf for leaf in growing if leaf.tokens[-1] not in self.chooser.stop_ids]
        return [leaf.drafted for leaf in leaves]

    # Where a token lies.

    def _goes_on(self, text: Sequence[int]) -> bool:
        """Return whether a text begins with what is settled."""
        return list(text[: len(self._text)]) == self._text

    def _end(self, text: Sequence[int], path: Sequence[int]) -> _Token:
        """Return the token at the end of a path behind the text, which goes on from the root."""
        token = _present(self._root)
        for each in (*text[len(self._text) :], *path):
            token = token.child(each)
        return token

    def _readable(self, end: _Token) -> bool:
        """Return whether the head can read the tokens up to this one and predict the next."""
        unread = [token.token for token in self._unread([end])]
        return end.position < self.reader.context and max(unread, default=0) < self.reader.known

    # What is settled.

    def _settle(self, text: Sequence[int]) -> list[_Token]:
        """Move the root along the text, as far as features allow; return the tokens on its way,
        which have to be read."""
        if not self._goes_on(text):
            self._forget()
        way = self._way_on(text)
        end = way[-1] if way else self._root
        if end is None or end.position < len(text) - 1:
            begin = self._answered_from(text)
            if begin < len(text):
                self._forget()
                self._root = _Token(text[begin - 1], begin - 1)
                self._text = list(text[:begin])
                way = self._way_on(text)
        if way:
            self._root = way[-1]
            self._text = list(text[: self._root.position + 1])
            at = self._root.position
            self._waiting = {each: row for each, row in self._waiting.items() if each >= at}
        return way

    def _way_on(self, text: Sequence[int]) -> list[_Token]:
        """Return the text's tokens behind the root, up to the first that nothing is known to read
        by."""
        way: list[_Token] = []
        token = self._root
        if token is None:
            return way
        for each in text[len(self._text) :]:
            if token.feature is None:
                token.feature = self._waiting.get(token.position)
            if token.feature is None and token.state is None:
                break
            token = token.child(each)
            way.append(token)
        return way

    def _answered_from(self, text: Sequence[int]) -> int:
        """Return the first position from which all tokens of the text can be read by features that
        wait; its length if the last one cannot."""
        begin = len(text)
        while begin - 2 in self._waiting:
            begin -= 1
        return begin

    def _forget(self) -> None:
        """Drop everything that was read."""
        self._root = None
        self._text = []
        self._settled = 0
        self._rows = 0

    # What is read.

    def _reach(self, ends: Sequence[_Token], settling: Sequence[_Token]) -> None:
        """Read what was settled, and the tokens up to some ends, as far as MAX_STEPS allows.

        Behind what is settled, all tokens lose their rows. Those that lead to the ends are read
        again now, and others when they are wanted.
        """
        if settling:
            self._era += 1
            self._rows = 0
        while len(settling) > READ_TOKENS:
            self._read(settling[:READ_TOKENS], [])
            settling = settling[READ_TOKENS:]
        for _ in range(MAX_STEPS):
            ready = [token for token in self._unread(ends) if token.read_by is not None]
            if not (settling or ready):
                break
            self._read(settling, ready)
            settling = []

    def _read(self, settling: Sequence[_Token], flying: Sequence[_Token]) -> None:
        """Read tokens into rows behind those that are there.

        Args:
            settling: tokens of the text, which follow each other; then there is no row behind the
                root yet.
            flying: tokens behind them, parents first.
        """
        first = self._rows
        for index, token in enumerate((*settling, *flying), first):
            token.sees = _present(token.parent).sees | 1 << index
        tokens = [*settling, *flying]
        line = all(token.sees == (2 << index) - 1 for index, token in enumerate(tokens, first))
        placement = Placement(
            start=self._settled + first,
            keep=(),
            positions=tuple(token.position - 1 for token in tokens),
            trunk=self._settled,
            sees=None if line else tuple(token.sees for token in tokens),
        )
        features = torch.stack([_present(token.read_by) for token in tokens])
        states = self.reader.read([token.token for token in tokens], features, placement)
        for token, state in zip(tokens, states, strict=True):
            token.state = state
            token.era = self._era
        if settling:
            for token in flying:
                token.sees >>= len(settling)
            self._settled += len(settling)
            settling[-1].sees = 0
            settling[-1].parent = None
        self._rows = first + len(flying)

    def _line(self, end: _Token) -> Iterator[_Token]:
        """Yield a token behind the root and those before it, without the root."""
        token = end
        while token is not self._root:
            yield token
            token = _present(token.parent)

    def _unread(self, ends: Sequence[_Token]) -> list[_Token]:
        """Return the tokens without rows that lead from the root to some ends, parents first."""
        found: dict[int, _Token] = {}
        for end in ends:
            without = [token for token in self._line(end) if token.era != self._era]
            found.update((id(token), token) for token in reversed(without))
        return list(found.values())


def _present(value: T | None) -> T:
    assert value is not None
    return value
