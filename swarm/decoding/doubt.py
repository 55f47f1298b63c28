"""Which guesses go out at once, and which wait until other sources were asked in their place.

Sources that are asked later may know better, and what is sent costs the peers a position.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from swarm.decoding.confidence import Confidence, Guess
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.drafter import Drafted, Source

SURE_CHANCE = 0.7  # of a guess, given what is before it; less is doubtful


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
    """Yield those of some nodes that need not wait for one of the sources.

    Args:
        nodes: behind the tip, parents before their children.
        sources: all that may be asked.
    """
    waiting: set[DraftNode | None] = set()
    for node in nodes:
        assert node.parent is not None  # it follows the tip
        sure = node.chance >= SURE_CHANCE or node.parent.asked.issuperset(sources)
        if sure and node.parent not in waiting:
            yield node
        else:
            waiting.add(node)
