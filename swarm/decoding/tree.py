"""What may follow the text: drafted tokens, told apart by how likely the text gets to them.

The *tip* is the last committed token. Behind it lie the draft's first choices, one after the other (the main line),
and where the draft was unsure its other choices too, which are continued like the first ones. When a token is
committed, the tip moves to it, and all that does not follow from it is dead.
"""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from swarm.decoding.confidence import Confidence
from swarm.decoding.drafting.drafter import Drafted

LEAST_CHANCE = 1e-300  # as good as any


class Node:
    """A token that is or may become part of the text.

    Attributes:
        position: in the text, from 0 on.
        reach: logarithm of the chance that the text gets here, from some point in the past; only differences count.
        drafted: what the draft said here, if this is its first choice.
        sure: of this choice, by the draft's own measure.
        serial: under which the chain holds it; 0 before it is sent.
        logits: ``[vocabulary]``, what the target says to follow; None before it has answered.
        alive: the text may still get here, or has just got here.
        asked: a drafter has been asked what follows.
    """

    def __init__(self, token: int, position: int, parent: "Node | None" = None) -> None:
        self.token, self.position, self.parent = token, position, parent
        self.reach = 0.0
        self.drafted: Drafted | None = None
        self.sure: float | None = None
        self.serial = 0
        self.logits: Tensor | None = None
        self.asked = False
        self.alive = True
        self.children: list[Node] = []  # the draft's first choice first

    @property
    def main(self) -> "Node | None":
        """The draft's first choice of what follows."""
        return self.children[0] if self.children else None

    def line(self) -> Iterator["Node"]:
        """This node and the draft's first choices behind it."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.main


class Tree:
    """The tip and all that may follow it."""

    def __init__(self, tip: Node) -> None:
        self.tip = tip
        self.nodes: list[Node] = []  # behind the tip, every parent before its children

    def likely(self, least_chance: float) -> list[Node]:
        """The tip, and the nodes behind it that the text gets to with at least this chance."""
        least = self.tip.reach + math.log(max(least_chance, LEAST_CHANCE))
        return [self.tip, *(node for node in self.nodes if node.reach >= least)]

    def grow(self, node: Node, drafted: Sequence[Drafted], branches: int, confidence: Confidence) -> int:
        """Let drafted tokens follow ``node``, one after the other, each with ``branches - 1`` alternatives at most;
        returns how many tokens that makes."""
        before = len(self.nodes)
        for guess in drafted:
            choices = [(guess.token, guess.sure), *guess.others[: branches - 1]]
            for rank, (token, sure) in enumerate(choices):
                child = Node(token, node.position + 1, node)
                child.sure, child.reach = sure, node.reach + math.log(confidence.chance(rank, sure))
                node.children.append(child)
            node.children[0].drafted = guess
            self.nodes += node.children
            node.asked = True
            node = node.children[0]
        return len(self.nodes) - before

    def advance(self, token: int) -> Node:
        """Commit ``token`` behind the tip; returns the new tip, a new node if the token was not drafted there."""
        old = self.tip
        tip = next((child for child in old.children if child.token == token), None)
        if tip is None:
            tip = Node(token, old.position + 1)
            tip.reach = old.reach
        for child in old.children:
            if child is not tip:
                _bury(child)
        # Nothing refers to what is committed: its logits, and those of the draft, are free.
        old.alive, old.children, tip.parent = False, [], None
        self.tip = tip
        self.nodes = [node for node in self.nodes if node.alive and node is not tip]
        return tip

    def path(self, node: Node) -> list[int]:
        """The tokens behind the tip up to ``node``."""
        tokens: list[int] = []
        while node is not self.tip:
            tokens.append(node.token)
            assert node.parent is not None  # a living node follows from the tip
            node = node.parent
        return tokens[::-1]


def _bury(node: Node) -> None:
    """This node and all that follows it are dead."""
    buried = [node]
    while buried:
        dead = buried.pop()
        dead.alive = False
        buried += dead.children
