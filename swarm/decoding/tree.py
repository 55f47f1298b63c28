"""What may follow the text: drafted tokens, told apart by how likely the text gets to them.

The *tip* is the last committed token. Behind it lie the draft's first choices, one after the other
(the main line), and where the draft was unsure its other choices too, which are continued like the
first ones. When a token is committed, the tip moves to it, and all that does not follow from it is
dead.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from swarm.decoding.confidence import Confidence
from swarm.decoding.drafting.drafter import Drafted

LEAST_CHANCE = 1e-300  # as good as any


class Node:
    """A token that is or may become part of the text.

    Attributes:
        position: in the text, from 0 on.
        reach: logarithm of the chance that the text gets here, from some point in the past; only
            differences count.
        drafted: what the draft said here, if this is its first choice.
        sure: of this choice, by the draft's own measure.
        serial: under which the chain holds it; 0 before it is sent.
        logits: ``[vocabulary]``, what the target says to follow; None before it has answered.
        hidden: ``[hidden]``, its last hidden state here, if it is kept.
        alive: the text may still get here, or has just got here.
        kept: it is part of the text.
    """

    def __init__(self, token: int, position: int, parent: "Node | None" = None) -> None:
        self.token, self.position, self.parent = token, position, parent
        self.reach = 0.0
        self.drafted: Drafted | None = None
        self.sure: float | None = None
        self.serial = 0
        self.logits: Tensor | None = None
        self.hidden: Tensor | None = None
        self.alive = True
        self.kept = False
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
    """The tip and all that may follow it. In every list, parents come before their children.

    Attributes:
        nodes: behind the tip.
        unsent: of these, those that have no serial.
        open: of these and the tip, those that may be continued: `grow` has not been told what
            follows them.
    """

    def __init__(self, tip: Node) -> None:
        self.tip = tip
        tip.kept = True
        self.nodes: list[Node] = []
        self.unsent: list[Node] = []
        self.open = [tip]

    @property
    def sent(self) -> int:
        """How many nodes behind the tip have a serial."""
        return len(self.nodes) - len(self.unsent)

    def likely(self, nodes: Iterable[Node], least_chance: float) -> list[Node]:
        """Of these nodes, those that the text gets to with at least this chance."""
        least = self.tip.reach + math.log(max(least_chance, LEAST_CHANCE))
        return [node for node in nodes if node.reach >= least]

    def grow(
        self, node: Node, drafted: Sequence[Drafted], branches: int, confidence: Confidence
    ) -> None:
        """Let drafted tokens follow an open node, one after the other, each with ``branches - 1``
        alternatives at most. It is not open any more, even if nothing follows."""
        self.open.remove(node)
        for behind, guess in enumerate(drafted):
            if behind:
                self.open.remove(node)
            choices = [(guess.token, guess.confidence), *guess.others[: branches - 1]]
            for rank, (token, sure) in enumerate(choices):
                child = Node(token, node.position + 1, node)
                child.sure, child.reach = sure, node.reach + math.log(confidence.chance(rank, sure))
                node.children.append(child)
            node.children[0].drafted = guess
            self.nodes += node.children
            self.unsent += node.children
            self.open += node.children
            node = node.children[0]

    def send(self, nodes: Iterable[Node], first: int) -> None:
        """Give consecutive serials to nodes that have none."""
        for serial, node in enumerate(nodes, first):
            node.serial = serial
        self.unsent = [node for node in self.unsent if not node.serial]

    def unsend(self) -> None:
        """Nothing is held by the chain any more: take all serials back, the tip's too."""
        for node in (self.tip, *self.nodes):
            node.serial = 0
        self.unsent = [*self.nodes]

    def advance(self, token: int) -> Node:
        """Commit ``token`` behind the tip; returns the new tip, a new node if the token was not
        drafted there."""
        old = self.tip
        tip = next((child for child in old.children if child.token == token), None)
        if tip is None:
            tip = Node(token, old.position + 1)
            tip.reach = old.reach
            self.open.append(tip)
        for child in old.children:
            if child is not tip:
                _bury(child)
        # Nothing refers to what is committed: its logits, and those of the draft, are free.
        old.alive, old.children, tip.parent = False, [], None
        self.tip = tip
        tip.kept = True
        self.nodes = [node for node in self.nodes if node.alive and node is not tip]
        self.unsent = [node for node in self.unsent if node.alive and node is not tip]
        self.open = [node for node in self.open if node.alive]
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
