"""Drafting several branches in one forward: eight tokens cost little more than one token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from swarm.decoding.drafting.choices import Chooser, PathDrafter
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.prefix import common_prefix
from swarm.wire.token_tree import BEGINNING, MAX_TAIL, Placement, TokenTree

# The most tokens of a text in a forward, whose memory grows with them. Leaves room for a whole tree
# within MAX_TAIL.
READ_TOKENS = 256


class TreeReader(Protocol):
    """A language model with its own cache of a token tree (`swarm.wire.token_tree`).

    Attributes:
        known: how many token ids the model has an embedding of.
        context: the positions that the model was made for.
    """

    @property
    def known(self) -> int: ...

    @property
    def context(self) -> int: ...

    def read(self, tokens: Sequence[int], placement: Placement, rows: Sequence[int]) -> Tensor:
        """Read tokens into the rows of ``placement``.

        Args:
            rows: indices of the tokens whose logits are returned.

        Returns:
            ``[len(rows), head]`` float32, on the CPU.
        """
        ...


@dataclass(eq=False, slots=True)
class _Held:
    """A token in the cache, of the draft's vocabulary."""

    serial: int
    children: dict[int, "_Held"] = field(default_factory=dict)  # by token


@dataclass(eq=False, slots=True)
class _Leaf:
    """A path behind the text, which grows by the drafted tokens."""

    tokens: list[int]  # of the target
    own: list[int]  # the same in the draft's vocabulary
    drafted: list[Drafted] = field(default_factory=list)


class TreeDrafter(PathDrafter):
    """Drafts what a `ModelDrafter` drafts, with one forward pass for all paths.

    The cache holds a *trunk*, which leads to the *root*, and a tree of tokens behind the root. The
    root follows the text; tokens that neither lead to it nor follow from it are dropped. So only
    new tokens are read, whichever branch the next call asks for.

    Args:
        reader: one that has read nothing yet.
        chooser: its vocabulary translates between the tokens of the model and those of the target;
            all other token ids here are the target's.
    """

    def __init__(self, reader: TreeReader, chooser: Chooser) -> None:
        self.reader = reader
        self.chooser = chooser
        self._tokens = TokenTree()
        self._root = _Held(BEGINNING)
        self._trunk: list[int] = []  # the draft's own tokens up to the root, its own included

    @torch.inference_mode()
    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`.

        Drafts nothing beyond the draft model's context (in its own tokens), nothing behind a stop
        token, and nothing behind a token that it has no embedding of (a target's vocabulary may be
        padded further).
        """
        vocabulary = self.chooser.vocabulary
        own = [*vocabulary.opening, *vocabulary.encode(text)]
        leaves = [_Leaf(list(path), vocabulary.encode(path)) for path in paths]
        growing = leaves if max(own, default=0) < self.reader.known else []
        for _ in range(count):
            growing = [leaf for leaf in growing if self._readable(len(own), leaf.own)]
            if not growing:
                break
            predicted = self._read(own, [leaf.own for leaf in growing])
            chosen = self.chooser.choose(predicted, text, [leaf.tokens for leaf in growing])
            for leaf, guess in zip(growing, chosen, strict=True):
                leaf.drafted.append(guess)
                leaf.tokens.append(guess.token)
                leaf.own += vocabulary.encode([guess.token])
            growing = [leaf for leaf in growing if leaf.tokens[-1] not in self.chooser.stop_ids]
        return [leaf.drafted for leaf in leaves]

    def _readable(self, text: int, path: list[int]) -> bool:
        """Return whether the model can read a path behind ``text`` tokens and predict the next."""
        fits = 0 < text + len(path) < self.reader.context
        return fits and max(path, default=0) < self.reader.known

    def _read(self, text: list[int], paths: Sequence[list[int]]) -> Tensor:
        """Return the logits behind the text and each of the paths, ``[len(paths), head]``."""
        # An empty path needs the logits of the text's last token, which is read again: its logits
        # were not kept.
        way = text if all(paths) else text[:-1]
        self._follow(way)
        ahead = len(text) - len(self._trunk) + sum(map(len, paths))
        if self._tokens.length - self._tokens.trunk + ahead > MAX_TAIL:
            self._start_over(self._tokens.trunk)
        while len(text) - len(self._trunk) > READ_TOKENS:
            start = len(self._trunk)
            self._append([text[start : start + READ_TOKENS]])
            self._follow(way)
        unread = text[len(self._trunk) :]
        return self._append([[*unread, *path] for path in paths])

    def _append(self, ways: Sequence[Sequence[int]]) -> Tensor:
        """Read the new tokens of paths that start at the root.

        Reads the last token of every path in any case, for its logits.

        Returns:
            The logits of the last tokens, ``[len(ways), head]``.
        """
        first = self._tokens.last + 1
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
        placement = self._tokens.admit(0, self._root.serial, first, len(tokens), parents)
        assert placement is not None  # there is but one epoch
        return self.reader.read(tokens, placement, ends)

    def _follow(self, text: list[int]) -> None:
        """Move the root along the text, as far as the cache holds it.

        If the text has left the trunk, go back to where it did.
        """
        same = common_prefix(self._trunk, text)
        if same < len(self._trunk):
            self._start_over(min(same, self._tokens.trunk))
        for token in text[len(self._trunk) :]:
            child = self._root.children.get(token)
            if child is None:
                break
            self._root = child
            self._trunk.append(token)

    def _start_over(self, rows: int) -> None:
        """Drop everything but the first ``rows`` of the trunk, which begin the cache."""
        self._tokens = TokenTree(trunk=rows)
        self._root = _Held(BEGINNING)
        del self._trunk[rows:]
