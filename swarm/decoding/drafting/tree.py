"""Drafting several branches at once: one forward of a draft model costs nearly the same for one
token as for eight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted, Drafter
from swarm.decoding.drafting.model import CHOICES, common_prefix
from swarm.decoding.drafting.vocabulary import Vocabulary
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING, Shaping
from swarm.wire.token_tree import BEGINNING, MAX_TAIL, Placement, TokenTree

# of a text a forward: its memory grows with them. Leaves room for a whole tree within MAX_TAIL
READ_TOKENS = 256


class Reader(Protocol):
    """A language model and a cache of its own, which holds a tree of tokens by the rules of
    `swarm.wire.token_tree`.

    Attributes:
        known: how many token ids the model has an embedding of.
        context: positions that it was made for.
    """

    @property
    def known(self) -> int: ...

    @property
    def context(self) -> int: ...

    def read(self, tokens: Sequence[int], placement: Placement, rows: Sequence[int]) -> Tensor:
        """Read tokens to where the placement says; returns ``[len(rows), head]``, what the model
        says to those with these indices."""
        ...


@dataclass(eq=False, slots=True)
class _Held:
    """A token that the cache holds, in the draft's vocabulary."""

    serial: int
    children: dict[int, "_Held"] = field(default_factory=dict)  # by token


@dataclass(eq=False, slots=True)
class _Leaf:
    """A path behind the text, which grows by what is drafted.

    Attributes:
        tokens: of the target. own: the same in the draft's vocabulary.
    """

    tokens: list[int]
    own: list[int]
    drafted: list[Drafted] = field(default_factory=list)


class TreeDrafter(Drafter):
    """Drafts what a `ModelDrafter` drafts, with one forward pass for all paths that are asked for.

    The cache holds a *trunk*, which leads to the *root*, and the tree of all that was read behind
    it. The root follows the text; what neither leads there nor follows from it is forgotten. So
    whatever branch is asked for next, only what is new is read.

    Args:
        reader: one that has read nothing yet.
        vocabulary: between the tokens of the model and those of the target, in which everything
            else here is.
        stop_ids: tokens of the target that end a text.
    """

    def __init__(
        self,
        reader: Reader,
        sampling: Sampling,
        vocabulary: Vocabulary,
        shaping: Shaping = NO_SHAPING,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.reader, self.sampling, self.vocabulary = reader, sampling, vocabulary
        self.shaping, self.stop_ids = shaping, stop_ids
        self._stream = TokenTree()
        self._root = _Held(BEGINNING)
        self._trunk: list[int] = []  # the draft's own tokens up to the root, its own included

    def draft(self, sequence: Sequence[int], count: int) -> list[Drafted]:
        """See `Drafter.draft` and `draft_each`."""
        return self.draft_each(sequence, [()], count)[0]

    @torch.inference_mode()
    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`.

        Drafts nothing beyond the draft model's own context (in its own tokens), or after a token it
        has no embedding of (a target's vocabulary may be padded further), and nothing behind a stop
        token.
        """
        own = [*self.vocabulary.opening, *self.vocabulary.encode(text)]
        leaves = [_Leaf(list(path), self.vocabulary.encode(path)) for path in paths]
        growing = leaves if max(own, default=0) < self.reader.known else []
        for _ in range(count):
            growing = [leaf for leaf in growing if self._readable(len(own), leaf.own)]
            if not growing:
                break
            said = self.vocabulary.project(self._read(own, [leaf.own for leaf in growing]))
            for leaf, guess in zip(growing, self._choose(said, text, growing), strict=True):
                leaf.drafted.append(guess)
                leaf.tokens.append(guess.token)
                leaf.own += self.vocabulary.encode([guess.token])
            growing = [leaf for leaf in growing if leaf.tokens[-1] not in self.stop_ids]
        return [leaf.drafted for leaf in leaves]

    def _readable(self, text: int, path: list[int]) -> bool:
        """Whether the model can read a path behind so many tokens of text, and say something to
        it."""
        return (
            0 < text + len(path) < self.reader.context and max(path, default=0) < self.reader.known
        )

    def _choose(
        self, said: Tensor, text: Sequence[int], leaves: Sequence[_Leaf]
    ) -> Iterator[Drafted]:
        """The draft's choices behind leaves to which it says ``[len(leaves), vocabulary]``."""
        if self.shaping != NO_SHAPING:
            rows = zip(said, leaves, strict=True)
            said = torch.cat(
                [self.shaping.apply(row[None], [*text, *leaf.tokens]) for row, leaf in rows]
            )
        ranked = self.sampling.rank(
            said, [len(text) + len(leaf.tokens) for leaf in leaves], CHOICES
        )
        for row, ((token, sure), *others) in zip(said, ranked, strict=True):
            # Copied, or what is kept of one leaf would keep the rows of all.
            yield Drafted(token, row.clone(), sure, tuple(others))

    def _read(self, text: list[int], paths: Sequence[list[int]]) -> Tensor:
        """``[len(paths), head]``: what the model says behind the text and each of the paths."""
        # Where the end of the text is asked for, it is read again: its answer was not kept.
        way = text if all(paths) else text[:-1]
        self._follow(way)
        ahead = len(text) - len(self._trunk) + sum(map(len, paths))
        if self._stream.length - self._stream.trunk + ahead > MAX_TAIL:
            self._start_over(self._stream.trunk)
        while len(text) - len(self._trunk) > READ_TOKENS:
            start = len(self._trunk)
            self._append([text[start : start + READ_TOKENS]])
            self._follow(way)
        unread = text[len(self._trunk) :]
        return self._append([[*unread, *path] for path in paths])

    def _append(self, ways: Sequence[Sequence[int]]) -> Tensor:
        """Read what is not held of some ways that lead on from the root, and in any case their
        ends; returns ``[len(ways), head]``, what the model says to these."""
        first = self._stream.last + 1
        tokens: list[int] = []
        parents: list[int] = []
        ends: list[int] = []
        for way in ways:
            node = self._root
            for depth, token in enumerate(way, 1):
                child = node.children.get(token)
                if child is None or (depth == len(way) and child.serial < first):
                    child = node.children[token] = _Held(first + len(tokens))
                    tokens.append(token)
                    parents.append(child.serial - node.serial)
                node = child
            ends.append(node.serial - first)
        placement = self._stream.admit(0, self._root.serial, first, len(tokens), parents)
        assert placement is not None  # there is but one epoch
        return self.reader.read(tokens, placement, ends)

    def _follow(self, text: list[int]) -> None:
        """Move the root along the text, as far as it is held.

        If the text has left the trunk, go back to there.
        """
        same = common_prefix(self._trunk, text)
        if same < len(self._trunk):
            self._start_over(min(same, self._stream.trunk))
        for token in text[len(self._trunk) :]:
            child = self._root.children.get(token)
            if child is None:
                break
            self._root = child
            self._trunk.append(token)

    def _start_over(self, rows: int) -> None:
        """Hold nothing but the first rows of the trunk, the way to whose end is the beginning of
        the cache."""
        self._stream, self._root = TokenTree(trunk=rows), _Held(BEGINNING)
        del self._trunk[rows:]
