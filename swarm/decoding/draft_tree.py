"""What may follow the text: drafted tokens, each with the chance that the text gets there.

The *tip* is the last committed token. Behind it lie the guesses of all sources: their first
choices, and where they were unsure their other choices too. Sources that guess the same share a
node, and part where their guesses do. When a token is committed, the tip moves to it, and all that
does not follow from it is dead.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from swarm.decoding.candidates import CandidateRow
from swarm.decoding.confidence import LEAST, Confidence, Guess
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.rules.rule import Needs

LEAST_CHANCE = 1e-300  # as good as any


class Vote(NamedTuple):
    """A guess that named a node's token, with the chance that it is right if no other is known."""

    guess: Guess
    chance: float


class DraftNode:
    """A token that is or may become part of the text.

    Attributes:
        position: in the text, from 0 on.
        chance: that the text gets here if it gets to the parent.
        log_chance: logarithm of the chance that the text gets here from some point in the past (the
            path probability of EAGLE-2, section 3.2); only differences count.
        votes: the guesses that named it, at most one of each source.
        asked: the sources that have been asked what follows here.
        proposals: the first choice of each source for what follows here.
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
        self.chance = 1.0
        self.log_chance = 0.0
        self.votes: list[Vote] = []
        self.asked: set[Source] = set()
        self.proposals: dict[Source, Drafted] = {}
        self.serial = 0
        self.logits: Tensor | None = None
        self.choice: int | None = None
        self.output: Tensor | None = None
        self.told: CandidateRow | None = None
        self.hidden: Tensor | None = None
        self.alive = True
        self.kept = False
        self.children: list[DraftNode] = []  # in the order in which they were drafted

    @property
    def answered(self) -> bool:
        """Whether the target has predicted what follows here."""
        return not (self.logits is None and self.choice is None and self.told is None)

    @property
    def main(self) -> "DraftNode | None":
        """The likeliest of the sources' first choices of what follows."""
        proposal = self.proposal()
        return None if proposal is None else self.child(proposal.token)

    def child(self, token: int) -> "DraftNode | None":
        """Return what follows with this token, if it was drafted."""
        return next((child for child in self.children if child.token == token), None)

    def proposal(self, drawn: bool = False) -> Drafted | None:
        """Return the guess that a rule judges: the likeliest of the sources' first choices.

        If sources agree on it, the one that drew it from a distribution counts.

        Args:
            drawn: prefer a guess that its source drew from its distribution, whatever else was
                guessed. It is chosen by its source alone: to prefer a likelier token would change
                the distribution that it is drawn from.
        """
        from_distribution = [each for each in self.proposals.values() if each.logits is not None]
        if drawn and from_distribution:
            return min(from_distribution, key=lambda each: _ORDER[each.source])
        first = {each.token: each for each in (*self.proposals.values(), *from_distribution)}
        likeliest = max(
            (child for child in self.children if child.token in first),
            key=lambda child: child.chance,
            default=None,
        )
        return None if likeliest is None else first[likeliest.token]

    def suffices(self, needs: Needs) -> bool:
        """Return whether a rule with these needs can judge by what is known of the prediction."""
        if self.logits is not None:
            return True
        if self.choice is None or needs is Needs.LOGITS:
            return False
        missed = self.main is not None and self.main.token != self.choice
        return needs is Needs.CHOICE or not missed

    def line(self, drawn: bool = False) -> Iterator[tuple["DraftNode", Drafted | None]]:
        """Yield this node and those behind it that a rule judges, each with the `proposal` of what
        follows it."""
        node: DraftNode | None = self
        while node is not None:
            proposal = node.proposal(drawn)
            yield node, proposal
            node = None if proposal is None else node.child(proposal.token)


_ORDER = {source: place for place, source in enumerate(Source)}


class DraftTree:
    """The tip and all that may follow it. In every list, parents come before their children.

    Attributes:
        nodes: behind the tip.
        unsent: of these, those that have no serial.
    """

    def __init__(self, tip: DraftNode) -> None:
        self.tip = tip
        tip.kept = True
        self.nodes: list[DraftNode] = []
        self.unsent: list[DraftNode] = []

    @property
    def sent(self) -> int:
        """How many nodes behind the tip have a serial."""
        return len(self.nodes) - len(self.unsent)

    def likely(self, nodes: Iterable[DraftNode], least_chance: float) -> list[DraftNode]:
        """Return those of some nodes that the text gets to with at least this chance."""
        least = self._least(least_chance)
        return [node for node in nodes if node.log_chance >= least]

    def unexplored(self, source: Source, least_chance: float) -> list[DraftNode]:
        """Return the nodes, or the tip, where a source was not asked, and where the text leaves
        what is drafted with at least this chance; the likeliest first."""
        least = self._least(least_chance)
        leaving = {
            node: _leaving(node)
            for node in (self.tip, *self.nodes)
            if node.log_chance >= least and source not in node.asked
        }
        found = [node for node, log_chance in leaving.items() if log_chance >= least]
        return sorted(found, key=leaving.__getitem__, reverse=True)

    def _least(self, chance: float) -> float:
        """Return the `DraftNode.log_chance` of nodes that the text gets to with this chance."""
        return self.tip.log_chance + math.log(max(chance, LEAST_CHANCE))

    def lag(self, node: DraftNode) -> int:
        """Return the `Guess.lag` of a token that follows a node."""
        lag = 0
        while node is not self.tip and not node.answered:
            lag += 1
            assert node.parent is not None  # a living node follows from the tip
            node = node.parent
        return lag if node.answered else lag + 1  # what stands before the tip was answered

    def grow(
        self,
        node: DraftNode,
        drafted: Sequence[Drafted],
        confidence: Confidence,
        *,
        source: Source = Source.MODEL,
        branches: int = 1,
        lag: int = 1,
        least_chance: float = 0.0,
    ) -> int:
        """Let a source's line follow a node, each token with ``branches - 1`` alternatives at most.

        What other sources have guessed already is shared. The source is not asked again at this
        node, even if nothing follows, nor along the line except at its end.

        Args:
            branches: with 1, all sources together have one token for a place: the line ends where
                another one stands.
            lag: of the first token (`Guess.lag`).
            least_chance: the line ends behind the first token that the text gets to with less.

        Returns:
            How many places have a first choice now that had none.
        """
        node.asked.add(source)
        places = 0
        for behind, guess in enumerate(drafted):
            taken = guess.source in node.proposals or (branches == 1 and node.children)
            if taken and node.child(guess.token) is None:
                break
            places += not node.proposals
            node.asked.add(source)
            self._add(node, guess, branches, confidence, lag + behind)
            following = node.child(guess.token)
            assert following is not None  # it was added, or was there
            node = following
            if node.log_chance < self._least(least_chance):
                break
        return places

    def _add(
        self, place: DraftNode, drafted: Drafted, branches: int, confidence: Confidence, lag: int
    ) -> None:
        """Add a source's choices for what follows a place, once."""
        source = drafted.source
        if source in place.proposals:
            return
        place.proposals[source] = drafted
        choices = [(drafted.token, drafted.confidence), *drafted.others[: branches - 1]]
        for rank, (token, sure) in enumerate(choices):
            child = place.child(token)
            if child is None:
                child = DraftNode(token, place.position + 1, place)
                place.children.append(child)
                self.nodes.append(child)
                self.unsent.append(child)
            guess = Guess(source, rank, sure, drafted.matched, lag)
            child.votes.append(Vote(guess, confidence.chance(guess)))
        _weigh(place)

    def send(self, nodes: Iterable[DraftNode], first: int) -> None:
        """Give consecutive serials to nodes that have none."""
        for serial, node in enumerate(nodes, first):
            node.serial = serial
        self.unsent = [node for node in self.unsent if not node.serial]

    def unsend(self) -> None:
        """Take all serials back, the tip's too: the chain holds nothing any more.

        What was told of these tokens goes with them: before they are sent again, no peer can tell
        more of it, and what it decides would follow a token that the chain does not hold.
        """
        for node in (self.tip, *self.nodes):
            node.serial = 0
            node.told = None
        self.unsent = [*self.nodes]

    def advance(self, token: int) -> DraftNode:
        """Commit ``token`` behind the tip; return the new tip, a new node if the token was not
        drafted there."""
        old = self.tip
        tip = old.child(token)
        if tip is None:
            tip = DraftNode(token, old.position + 1)
            tip.log_chance = old.log_chance
        for child in old.children:
            if child is not tip:
                _bury(child)
        # Nothing refers to what is committed: its logits, and those of the draft, are free.
        old.alive = False
        old.children = []
        old.proposals = {}
        tip.parent = None
        tip.kept = True
        self.tip = tip
        self.nodes = [node for node in self.nodes if node.alive and node is not tip]
        self.unsent = [node for node in self.unsent if node.alive and node is not tip]
        return tip

    def path(self, node: DraftNode) -> list[int]:
        """Return the tokens behind the tip up to ``node``."""
        tokens: list[int] = []
        while node is not self.tip:
            tokens.append(node.token)
            assert node.parent is not None  # a living node follows from the tip
            node = node.parent
        return tokens[::-1]


def _leaving(node: DraftNode) -> float:
    """Return the logarithm of the chance that the text gets to a node and goes on from there to
    what is not drafted; comparable with `DraftNode.log_chance`."""
    if not node.children:
        return node.log_chance
    left = 1.0 - sum(child.chance for child in node.children)
    return node.log_chance + math.log(max(left, LEAST))


def _weigh(place: DraftNode) -> None:
    """Give what follows a place its chances, as all votes together suggest.

    A token's chance is that of its surest vote, but the chances of all tokens add up to 1 at most:
    where sources disagree, the likelier token comes first, and others share what it leaves.
    """
    left = 1.0
    votes = {child: max(vote.chance for vote in child.votes) for child in place.children}
    for child in sorted(place.children, key=votes.__getitem__, reverse=True):
        child.chance = max(min(votes[child], left), LEAST)
        left -= child.chance
    below = list(place.children)
    while below:
        node = below.pop()
        assert node.parent is not None  # it follows the place
        node.log_chance = node.parent.log_chance + math.log(node.chance)
        below += node.children


def _bury(node: DraftNode) -> None:
    """Mark this node and all that follows it as dead."""
    buried = [node]
    while buried:
        dead = buried.pop()
        dead.alive = False
        buried += dead.children
