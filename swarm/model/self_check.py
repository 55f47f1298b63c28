"""A span checks itself on random tokens when it is loaded, and chooses the way in which it runs.

Chunks beside neighbours must give what the model's own attention gives in one piece. Whether a span
is the right part of its model is another question, which `swarm.model.rehearsal` answers.
"""

import logging
from typing import Any

import torch

from swarm.errors import UnsupportedModel
from swarm.model.cache import KVCache
from swarm.model.masks import NotPackable
from swarm.model.span import FAILURES, Span, SpanWay
from swarm.model.work import Work
from swarm.wire.token_tree import Placement

CHECK_TOKENS = 6  # enough for two chunks and a neighbour
CUT = CHECK_TOKENS * 2 // 3  # where the second chunk begins
# Relative error in 32 bits and more: noise is far below, wrong masks are far above.
TOLERANCE = 1e-3
ROUGH_TOLERANCE = 0.1  # in 16 bits, where two correct ways of attending differ visibly
# Rotary embeddings that turn a whole row by its largest position.
LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})

log = logging.getLogger(__name__)


def choose_way(span: Span, name: str, stepwise: bool = False) -> None:
    """Make a span run in the fastest way that is right.

    Args:
        name: of the model.
        stepwise: whether layers that keep states must read one token at a time, as it was found of
            a miniature: in 16 bits the difference may be too small to see.

    Raises:
        UnsupportedModel: if chunks do not give what one piece gives in any way.
    """
    generator = torch.Generator().manual_seed(0)
    if span.first:
        inputs = torch.randn((CHECK_TOKENS, span.hidden_size), generator=generator)
    else:
        inputs = torch.randint(span.vocab_size, (CHECK_TOKENS,), generator=generator)
    try:
        expected = span.once(inputs)
        if not expected.isfinite().all():
            raise UnsupportedModel(name, _not_finite(span))
        span.find_states(inputs)
        why = _first_that_is_right(span, inputs, expected, stepwise)
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        why = f"its layers do not run alone ({type(error).__name__}: {error})"
        raise UnsupportedModel(name, why) from error
    if why:
        raise UnsupportedModel(name, why)
    if span.packs:
        span.why_alone = ""
    if turns_by_length(span.config):
        span.packs = False
        span.why_alone = "its rotary embedding turns all of a row by the row's largest position"


def _not_finite(span: Span) -> str:
    dtype = str(span.dtype).removeprefix("torch.")
    which = f"its layers {span.first}:{span.last} give numbers that are not finite"
    return f"{which}: their weights are damaged, or too large for {dtype}"


def turns_by_length(config: Any) -> bool:
    """Return whether a model's rotary embedding turns a whole row by its largest position."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(entry for entry in rope.values() if isinstance(entry, dict))]
    return any(kind.get("rope_type") in LENGTH_DEPENDENT_ROPE for kind in kinds)


def _first_that_is_right(
    span: Span, inputs: torch.Tensor, expected: torch.Tensor, stepwise: bool
) -> str | None:
    """Try all ways, the fastest first; return what is wrong with the last one, if all are."""
    why = None
    for packs, gathers in ((True, False), (True, True), (False, False)):
        for steps in (stepwise, True) if span.recurrent and not stepwise else (stepwise,):
            span.run_by(SpanWay(packs, gathers, steps))
            why = _wrong(span, inputs, expected)
            if not why:
                return None
        span.why_alone = why or ""
    return why


def _wrong(span: Span, inputs: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Run `inputs` in two chunks; return what is wrong with the result, if anything.

    The second chunk runs beside a neighbour and, if the span branches, beside a losing branch.
    """
    cache = span.new_cache()
    neighbour = span.new_cache()
    try:
        start = span.forward([Work.behind(cache, inputs[:CUT])])[0]
        chunk = Work.behind(cache, inputs[CUT:])
        if span.branches:
            chunk = _beside(inputs[:1], chunk)
        outputs = span.forward([Work.behind(neighbour, inputs[1:CUT]), chunk])
        rest = outputs[1][-len(inputs) + CUT :]
        if span.recurrent:
            rest = torch.cat([rest[:-1], _rolled_back(span, cache, neighbour, inputs)])
    except NotPackable as error:
        if not span.packs:
            raise
        return str(error)
    except FAILURES as error:
        if not span.packs:
            raise
        log.debug("packed, its layers raise %s: %s", type(error).__name__, error)
        return "it attends by code of its own"
    span.nbytes_per_token = cache.nbytes_per_token
    if cache.states is not None:
        span.nbytes_of_states = cache.states.nbytes_each
    difference = torch.cat([start, rest]).float() - expected.float()
    error_norm = difference.norm() / expected.float().norm()
    if not error_norm <= (TOLERANCE if span.dtype.itemsize >= 4 else ROUGH_TOLERANCE):
        how = f"relative error {error_norm:.2g}"
        return f"its layers give another result in chunks than in one piece ({how})"
    return None


def _rolled_back(
    span: Span, cache: KVCache, neighbour: KVCache, inputs: torch.Tensor
) -> torch.Tensor:
    """Return the last token's output once more, after a rollback between two states.

    The neighbour reads as many tokens as the cache then does, so both are one batch.
    """
    last = len(inputs) - 1
    again = Work(cache, inputs[last:], Placement(last, (), (last,), trunk=CUT, sees=None))
    return span.forward([again, Work.behind(neighbour, inputs[:2])])[0]


def _beside(branch: torch.Tensor, work: Work) -> Work:
    """Return the work with one more token before, `branch` [1(, hidden)], that no other sees."""
    start = work.placement.start
    positions = work.placement.positions
    sees = (1, *((2 << i) - 2 for i in range(1, len(positions) + 1)))
    placement = Placement(start, (), (start, *positions), start, sees)
    return Work(work.cache, torch.cat((branch, work.inputs)), placement)
