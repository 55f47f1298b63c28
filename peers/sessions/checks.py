"""What a peer checks of a session's frames before it computes them."""

import torch

from peers.faults import SessionFault
from swarm.model.span import Span
from swarm.wire.faults import FaultCode
from swarm.wire.messages import MAX_HOPS, Frame
from swarm.wire.tensors import WireTensor, dtype_name
from swarm.wire.token_tree import Placement


def check_frame(frame: Frame, first: int, span: Span) -> None:
    """Check what does not depend on earlier frames. Raise `SessionFault`.

    Args:
        first: the first layer of the session.
    """
    problem = ""
    if (frame.tokens is not None) != (first == 0):
        problem = "tokens go to layer 0, hidden states to later layers"
    elif frame.tokens is not None and max(frame.tokens) >= span.vocab_size:
        problem = f"token ids must be below {span.vocab_size}"
    elif frame.hidden is not None and frame.hidden.hidden != span.hidden_size:
        problem = f"hidden states must be {span.hidden_size} wide"
    # the next peer would refuse it, and blame us
    elif max(len(frame.compute_ms), len(frame.queue_ms)) >= MAX_HOPS:
        problem = f"a frame passes {MAX_HOPS} peers at most"
    if problem:
        raise SessionFault(FaultCode.BAD_MESSAGE, problem)
    if frame.hidden is not None and not _fits(frame.hidden, span.dtype):
        raise SessionFault(FaultCode.NOT_FINITE, f"hidden states are not finite in {span.dtype}")


def check_place(
    placement: Placement,
    count: int,
    *,
    max_tokens: int,
    max_positions: int | None,
    branches: bool,
) -> None:
    """Check what depends on earlier frames: room, the model's context, and branches.

    Args:
        count: how many tokens are placed.
        max_tokens: that the session was opened for.
        max_positions: the model's context; None if the model sets no limit.
        branches: whether the model takes several continuations of one token.

    Raises:
        SessionFault: if the tokens have no place there.
    """
    rows = placement.start + count
    problem = ""
    if rows > max_tokens:
        problem = (
            f"the session was opened for {max_tokens} tokens, and this makes {rows}, losing"
            " branches included"
        )
    elif max_positions is not None and max(placement.positions) >= max_positions:
        problem = f"the model's context ends at {max_positions} tokens"
    elif placement.sees is not None and not branches:
        problem = "this model takes no branches: each token must follow the one sent before it"
    if problem:
        raise SessionFault(FaultCode.BAD_MESSAGE, problem)


def _fits(hidden: WireTensor, dtype: torch.dtype) -> bool:
    """Whether all values are finite, also in the dtype that computes: its range may be smaller."""
    if not hidden.is_finite:
        return False
    return hidden.dtype == dtype_name(dtype) or WireTensor.pack(hidden.unpack().to(dtype)).is_finite
