"""Drafting with a head that predicts a block of tokens in one pass (`swarm.model.heads.block`).

A block begins behind what is known of the target's states. In a stream tokens are in flight there:
these are given to the block as known, and what follows them is masked. All leaves are read in one
pass, one block each, and a pass predicts all that its blocks have room for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from swarm.decoding.drafting.choices import Chooser, HeadDrafter
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature

MAX_LEAVES = 8  # blocks in a pass
MAX_AHEAD = 256  # outputs that wait for their tokens to be committed


class BlockReader(Protocol):
    """A block head with its own context.

    Attributes:
        known: how many token ids there are embeddings of.
        context: the positions that the head was made for.
        size: tokens of a block, its anchor included.
        first: the slot that predicts what follows the anchor, if nothing else is known.
    """

    @property
    def known(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def first(self) -> int: ...

    def forget(self) -> None:
        """Drop the context: another text begins."""
        ...

    def add(self, outputs: Tensor, positions: Sequence[int]) -> None:
        """Take outputs of the target ``[n, taps, hidden]`` at some positions as context."""
        ...

    def read(self, blocks: Sequence[Sequence[int]], anchor: int) -> Tensor:
        """Return the states of blocks, ``[len(blocks), size, hidden]``.

        Args:
            blocks: the known tokens of each, from the anchor on.
            anchor: the anchor's position.
        """
        ...

    def logits(self, states: Tensor, before: Sequence[int]) -> Tensor:
        """Return what follows some tokens, ``[n, rows]`` float32, on the CPU.

        Args:
            states: ``[n, hidden]``.
            before: these tokens.
        """
        ...


@dataclass(eq=False, slots=True)
class _Leaf:
    """A path behind the text, which grows by the drafted tokens.

    Attributes:
        block: what is known from the anchor on.
        tokens: behind the text.
    """

    block: list[int]
    tokens: list[int]
    drafted: list[Drafted] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class _Ahead:
    """Outputs of the target at the end of a path behind the first ``text`` tokens."""

    text: int
    path: tuple[int, ...]
    output: Tensor

    @property
    def end(self) -> int:
        """The position of the path's last token."""
        return self.text + len(self.path) - 1

    def follows(self, text: Sequence[int]) -> bool:
        """Return whether the path has become part of the text."""
        return tuple(text[self.text : self.end + 1]) == self.path


class BlockDrafter(HeadDrafter):
    """Drafts by a block head. Call `answered` before `draft_each` with what has become known.

    It drafts nothing behind more unanswered tokens than a block has room for.

    Args:
        reader: one that has read nothing yet.
        chooser: its vocabulary turns the head's predictions into those of the target's tokens,
            which the head reads.
        prompt_features: how many positions of a prompt's end it is worth to have answered.
        taps: layers of the target whose outputs make features.
    """

    def __init__(
        self,
        reader: BlockReader,
        chooser: Chooser,
        prompt_features: int = 512,
        taps: tuple[int, ...] = (),
    ) -> None:
        super().__init__(prompt_features, taps)
        self.reader = reader
        self.chooser = chooser
        self._text: list[int] = []  # as of the last call
        self._known: set[int] = set()  # positions in the context
        self._ahead: list[_Ahead] = []  # outputs at tokens that are only drafted

    @torch.inference_mode()
    def answered(self, text: Sequence[int], features: Sequence[Feature]) -> None:
        """Take what the target has answered since the last call; ``text`` is committed.

        Outputs at tokens that are only drafted wait until these are committed: until then the
        blocks know the tokens alone.
        """
        self._go_on(text)
        self._ahead += [_Ahead(len(text), each.path, each.output) for each in features if each.path]
        news = {each.position: each.output for each in features if not each.path}
        news |= {each.end: each.output for each in self._ahead if each.follows(text)}
        self._ahead = [each for each in self._ahead if each.end >= len(text)][-MAX_AHEAD:]
        news = {
            at: row
            for at, row in news.items()
            if at not in self._known and at < self.reader.context
        }
        if news:
            self._known |= news.keys()
            self.reader.add(torch.stack(list(news.values())), list(news))

    @torch.inference_mode()
    def draft_each(
        self, text: Sequence[int], paths: Sequence[Sequence[int]], count: int
    ) -> list[list[Drafted]]:
        """See `Drafter.draft_each`."""
        self._go_on(text)
        if not self._known or not text:
            return [[] for _ in paths]
        anchor = min(max(self._known) + 1, len(text) - 1)
        leaves = [_Leaf([*text[anchor:], *path], list(path)) for path in paths]
        growing = [leaf for leaf in leaves if self._fits(leaf, anchor)][:MAX_LEAVES]
        if growing:
            states = self.reader.read([leaf.block for leaf in growing], anchor)
            slots = dict(zip(map(id, growing), states, strict=True))
            for _ in range(count):
                self._grow(growing, slots, text)
                growing = [leaf for leaf in growing if self._goes_on(leaf)]
                if not growing:
                    break
        return [leaf.drafted for leaf in leaves]

    def _go_on(self, text: Sequence[int]) -> None:
        """Drop the context if the text does not go on from the last one."""
        if list(text[: len(self._text)]) != self._text:
            self.reader.forget()
            self._known.clear()
            self._ahead.clear()
        self._text = list(text)

    def _fits(self, leaf: _Leaf, anchor: int) -> bool:
        """Return whether a block has room for what is known of a leaf, and for one token more."""
        inside = self._slot(leaf) < self.reader.size
        within = anchor + len(leaf.block) < self.reader.context
        return inside and within and max(leaf.block) < self.reader.known

    def _slot(self, leaf: _Leaf) -> int:
        """Return the slot that predicts what follows a leaf."""
        return len(leaf.block) - 1 + self.reader.first

    def _goes_on(self, leaf: _Leaf) -> bool:
        return self._slot(leaf) < self.reader.size and leaf.block[-1] not in self.chooser.stop_ids

    def _grow(self, leaves: Sequence[_Leaf], slots: dict[int, Tensor], text: Sequence[int]) -> None:
        """Draft one token behind each leaf.

        Args:
            slots: the states ``[size, hidden]`` of each leaf's block, by the leaf's id.
        """
        states = torch.stack([slots[id(leaf)][self._slot(leaf)] for leaf in leaves])
        before = [leaf.block[-1] for leaf in leaves]
        predicted = self.reader.logits(states, before)
        chosen = self.chooser.choose(predicted, text, [leaf.tokens for leaf in leaves])
        for leaf, guess in zip(leaves, chosen, strict=True):
            leaf.drafted.append(guess)
            leaf.block.append(guess.token)
            leaf.tokens.append(guess.token)
