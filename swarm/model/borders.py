"""Where a model may be cut, found by trying each place on a miniature with as many layers.

A layer may need more than the hidden states of the one before: the indices of what that one attends
to (GLM-5.2), keys and values that it shares, or what all layers are told of a token (Gemma 4 E2B).
A span that begins between such layers fails.
"""

import torch

from swarm.model.span import FAILURES, Span
from swarm.routing.cuts import Cuts

TOLERANCE = 1e-4  # of the largest output of the last layer


def find_cuts(span: Span, ids: torch.Tensor) -> Cuts | None:
    """Return where a model may be cut; None if that cannot be told.

    There the rest of the layers, from the hidden states that come in there alone, gives what it
    gives when all layers run at once. Elsewhere it fails for want of something. If it gives
    something else instead, it is not known what was lost.

    Args:
        span: all layers, which may be cut anywhere as far as it knows.
        ids: [n], a text to try with.
    """
    expected = span.once(ids)
    found: list[int] = []
    before = 0
    values = ids
    for place in range(1, span.last):
        entering = span.once(values, before, place)
        try:
            output = span.once(entering, place)
        except FAILURES:
            continue
        if not (output - expected).abs().max() <= TOLERANCE * expected.abs().max():
            return None
        found.append(place)
        before = place
        values = entering
    return Cuts(span.last, tuple(found))
