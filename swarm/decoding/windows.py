"""The windows in which a client sends a text, and the part of it that a chain then holds.

Serials, epochs and roots are those of `swarm.wire.token_tree`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from swarm.decoding.drafting.feature import Feature


@dataclass(frozen=True)
class Window:
    """Tokens to send in one frame.

    Attributes:
        first: the serial of the first token; the others' serials follow.
        parents: how many serials before its own each token's parent is; None if each token follows
            the one before it, and the first one follows the last one that was sent.
        tail: how many of the last tokens' predictions are wanted back.
        position: of the first token in the text.
        features: how many of these predictions, the first ones, are of a prompt's tokens, and only
            wanted for the drafter.
    """

    epoch: int
    root: int
    first: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...] | None
    tail: int
    position: int
    features: int = 0


@dataclass(frozen=True)
class ResumePoint:
    """Where a text can go on: every peer of the chain holds ``tokens``, or will soon.

    Attributes:
        epoch: of the next window.
        root: the serial of the last of the tokens.
        last: the last serial that was given; those of the next window follow it.
        tokens: the beginning of the text.
        features: what the target answered at the last of these tokens, where a drafter reads it.
    """

    epoch: int
    root: int
    last: int
    tokens: tuple[int, ...]
    features: tuple[Feature, ...] = field(default=(), compare=False)

    def beginning(self, count: int) -> "ResumePoint":
        """Return where a text can go on in a session of its own that begins with the first
        ``count`` of these tokens."""
        known = tuple(each for each in self.features if each.position < count)
        return ResumePoint(0, count, count, self.tokens[:count], known)


NOTHING_HELD = ResumePoint(epoch=0, root=0, last=0, tokens=())


def windows(
    tokens: Sequence[int], sizes: Iterable[int], answered_from: int = 0, predicted_from: int = 0
) -> Iterator[Window]:
    """Yield the windows of a known text, one after the other, in one epoch.

    Args:
        sizes: the most tokens of each window; enough of them for the whole text.
        answered_from: the first position whose answer is wanted.
        predicted_from: the first whose answer is wanted for more than a drafter.
    """
    start = 0
    for size in sizes:
        end = min(start + size, len(tokens))
        if start == end:
            return
        tail = max(0, end - max(start, answered_from))
        features = max(0, min(end, predicted_from) - max(start, answered_from))
        chunk = tuple(tokens[start:end])
        yield Window(0, start, start + 1, chunk, None, tail, start, features)
        start = end
