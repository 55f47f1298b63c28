"""How far two sequences of tokens are the same."""

from collections.abc import Sequence
from itertools import compress, count
from operator import ne


def common_prefix(a: list[int], b: Sequence[int]) -> int:
    """Return how many leading tokens two sequences share."""
    # Without a Python loop: every call of a drafter compares the whole sequence, which mostly only
    # grew.
    if a == list(b[: len(a)]):
        return len(a)
    return next(compress(count(), map(ne, a, b)), min(len(a), len(b)))
