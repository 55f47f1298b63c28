"""Which guesses go out at once, which wait until other sources were asked in their place, and which
these have made too unlikely.

Sources that are asked later may know better, and what is sent costs the peers a position.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from swarm.decoding.confidence import Confidence, Guess
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.drafter import Drafted, Source

SURE_CHANCE = 0.7  # of a guess, given what is before it; less is doubtful
# Of a guess that only a source without costs made, though others were asked there, too: with less
# it takes positions, and makes no text faster.
ALONE_CHANCE = 0.3


def sure_beginning(line: Sequence[Drafted], lag: int, confidence: Confidence) -> Sequence[Drafted]:
    """Return the beginning of a line in which every token is sure to follow the one before.

    Args:
        lag: of the first token (`Guess`).
    """
    for behind, each in enumerate(line):
        guess = Guess(each.source, 0, each.confidence, each.matched, lag + behind)
        if confidence.chance(guess) < SURE_CHANCE:
            return line[:behind]
    return line


def settled(nodes: Iterable[DraftNode], sources: Collection[Source]) -> Iterator[DraftNode]:
    """Yield those of some nodes that are likely enough, given what is before them.

    Args:
        nodes: behind the tip, parents before their children.
        sources: all that may be asked.
    """
    held_back: set[DraftNode | None] = set()
    for node in nodes:
        if node.parent not in held_back and node.chance >= _settled_chance(node, sources):
            yield node
        else:
            held_back.add(node)


def _settled_chance(node: DraftNode, sources: Collection[Source]) -> float:
    assert node.parent is not None  # it follows the tip
    if not node.parent.asked.issuperset(sources):
        return SURE_CHANCE
    alone = len(sources) > 1 and all(vote.guess.source.is_free for vote in node.votes)
    return ALONE_CHANCE if alone else 0.0
