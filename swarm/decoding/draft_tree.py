"""What may follow the text: drafted tokens, each with the chance that the text gets there.

The *tip* is the last committed token. Behind it lie the draft's first choices, one after the other
(the main line), and where the draft was unsure its other choices too, which are continued like the
first ones. When a token is committed, the tip moves to it, and all that does not follow from it is
dead.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from swarm.decoding.candidates import CandidateRow
from swarm.decoding.confidence import Confidence
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.rules.rule import Needs

LEAST_CHANCE = 1e-300  # as good as any


class DraftNode:
    """A token that is or may become part of the text.

    Attributes:
        position: in the text, from 0 on.
        log_chance: logarithm of the chance that the text gets here from some point in the past (the
            path probability of EAGLE-2, section 3.2); only differences count.
        drafted: what the draft said here, if this is its first choice.
        confidence: the draft's own, in this choice.
        serial: under which the chain holds it; 0 before it is sent.
        logits: ``[vocabulary]``, the target's prediction of what follows; None before it has
            answered, and where only its choice is known.
        choice: what it chooses to follow, if that is known already.
        output: ``[hidden]``, the chain's answer here, of which logits can be made; None if they
            are known.
        told: a part of that prediction, if the last peer tells no more.
        hidden: ``[hidden]``, its last hidden state here, if it is kept.
        alive: the text may still get here, or has just got here.
        kept: it is part of the text.
    """

    def __init__(self, token: int, position: int, parent: "DraftNode | None" = None) -> None:
        self.token = token
        self.position = position
        self.parent = parent
        self.log_chance = 0.0
        self.drafted: Drafted | None = None
        self.confidence: float | None = None
        self.serial = 0
        self.logits: Tensor | None = None
        self.choice: int | None = None
        self.output: Tensor | None = None
        self.told: CandidateRow | None = None
        self.hidden: Tensor | None = None
        self.alive = True
        self.kept = False
        self.children: list[DraftNode] = []  # the draft's first choice first

    @property
    def main(self) -> "DraftNode | None":
        """The draft's first choice of what follows."""
        return self.children[0] if self.children else None

    def suffices(self, needs: Needs) -> bool:
        """Return whether a rule with these needs can judge by what is known of the prediction."""
        if self.logits is not None:
            return True
        if self.choice is None or needs is Needs.LOGITS:
            return False
        missed = self.main is not None and self.main.token != self.choice
        return needs is Needs.CHOICE or not missed

    def line(self) -> Iterator["DraftNode"]:
        """Yield this node and the draft's first choices behind it."""
        node: DraftNode | None = self
        while node is not None:
            yield node
            node = node.main


class DraftTree:
    """The tip and all that may follow it. In every list, parents come before their children.

    Attributes:
        nodes: behind the tip.
        unsent: of these, those that have no serial.
        open: of these and the tip, those that may be continued: `grow` was not called for them.
    """

    def __init__(self, tip: DraftNode) -> None:
        self.tip = tip
        tip.kept = True
        self.nodes: list[DraftNode] = []
        self.unsent: list[DraftNode] = []
        self.open = [tip]

    @property
    def sent(self) -> int:
        """How many nodes behind the tip have a serial."""
        return len(self.nodes) - len(self.unsent)

    def likely(self, nodes: Iterable[DraftNode], least_chance: float) -> list[DraftNode]:
        """Return those of some nodes that the text gets to with at least this chance."""
        least = self.tip.log_chance + math.log(max(least_chance, LEAST_CHANCE))
        return [node for node in nodes if node.log_chance >= least]

    def grow(
        self, node: DraftNode, drafted: Sequence[Drafted], branches: int, confidence: Confidence
    ) -> None:
        """Let drafted tokens follow an open node, one after the other, each with ``branches - 1``
        alternatives at most. The node is not open any more, even if nothing follows."""
        self.open.remove(node)
        for behind, guess in enumerate(drafted):
            if behind:
                self.open.remove(node)
            choices = [(guess.token, guess.confidence), *guess.others[: branches - 1]]
            for rank, (token, sure) in enumerate(choices):
                child = DraftNode(token, node.position + 1, node)
                child.confidence = sure
                child.log_chance = node.log_chance + math.log(confidence.chance(rank, sure))
                node.children.append(child)
            node.children[0].drafted = guess
            self.nodes += node.children
            self.unsent += node.children
            self.open += node.children
            node = node.children[0]

    def send(self, nodes: Iterable[DraftNode], first: int) -> None:
        """Give consecutive serials to nodes that have none."""
        for serial, node in enumerate(nodes, first):
            node.serial = serial
        self.unsent = [node for node in self.unsent if not node.serial]

    def unsend(self) -> None:
        """Take all serials back, the tip's too: the chain holds nothing any more."""
        for node in (self.tip, *self.nodes):
            node.serial = 0
        self.unsent = [*self.nodes]

    def advance(self, token: int) -> DraftNode:
        """Commit ``token`` behind the tip; return the new tip, a new node if the token was not
        drafted there."""
        old = self.tip
        tip = next((child for child in old.children if child.token == token), None)
        if tip is None:
            tip = DraftNode(token, old.position + 1)
            tip.log_chance = old.log_chance
            self.open.append(tip)
        for child in old.children:
            if child is not tip:
                _bury(child)
        # Nothing refers to what is committed: its logits, and those of the draft, are free.
        old.alive = False
        old.children = []
        tip.parent = None
        tip.kept = True
        self.tip = tip
        self.nodes = [node for node in self.nodes if node.alive and node is not tip]
        self.unsent = [node for node in self.unsent if node.alive and node is not tip]
        self.open = [node for node in self.open if node.alive]
        return tip

    def path(self, node: DraftNode) -> list[int]:
        """Return the tokens behind the tip up to ``node``."""
        tokens: list[int] = []
        while node is not self.tip:
            tokens.append(node.token)
            assert node.parent is not None  # a living node follows from the tip
            node = node.parent
        return tokens[::-1]


def _bury(node: DraftNode) -> None:
    """Mark this node and all that follows it as dead."""
    buried = [node]
    while buried:
        dead = buried.pop()
        dead.alive = False
        buried += dead.children
