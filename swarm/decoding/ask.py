"""What a drafter is asked next: which source, and behind which nodes of the tree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.policy import SpeculationPlan


@dataclass(frozen=True)
class Ask:
    """What one source should draft next: at most ``count`` tokens behind each of some nodes.

    Attributes:
        nodes: at least one, those first where the drafted tokens are the likeliest to be reached.
        text: all committed tokens.
        paths: for each node, the tokens behind the text up to and including the node; empty for the
            tip.
        lags: for each node, that of the first token drafted there (`Guess.lag`).
        features: the target's answers that have become known since the last one, for a source that
            reads them.
    """

    source: Source
    nodes: tuple[DraftNode, ...]
    text: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    lags: tuple[int, ...]
    count: int
    features: tuple[Feature, ...] = ()


def next_ask(
    source: Source,
    tree: DraftTree,
    plan: SpeculationPlan,
    text: Sequence[int],
    room: Callable[[DraftNode], int],
) -> Ask | None:
    """Return what to ask a source, if anything.

    It is asked where the text may leave what is drafted already, likely enough. In a stream, a
    source that costs nothing drafts a whole frame at once, another one a token at each place. A
    window that is waited for is filled from one place after the other.

    Args:
        text: all committed tokens.
        room: how many tokens may be drafted behind a node.
    """
    if plan.depth > 1:
        leaves, count = plan.leaves, plan.window if source.is_free else 1
    else:
        leaves, count = 1, plan.window - len(tree.nodes)
    open_nodes = tree.unexplored(source, plan.least_chance)
    if plan.branches == 1:  # all that may follow a node already does
        open_nodes = [node for node in open_nodes if not node.children]
    nodes = [node for node in open_nodes if room(node) > 0][:leaves]
    count = min(count, max(map(room, nodes), default=0))
    if count < 1:
        return None
    paths = tuple(tuple(tree.path(node)) for node in nodes)
    return Ask(source, tuple(nodes), tuple(text), paths, tuple(map(tree.lag, nodes)), count)
