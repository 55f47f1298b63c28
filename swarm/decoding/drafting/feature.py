"""What a drafter is told of the target."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class TappedToken:
    """What some layers of the target gave at a token.

    Attributes:
        serial: of the token (`swarm.wire.token_tree`).
        outputs: ``[layers, hidden]`` float32.
    """

    serial: int
    outputs: Tensor


@dataclass(frozen=True, eq=False)
class Feature:
    """The target's answer at a token.

    Attributes:
        position: of the token in the text.
        path: for a token that is only drafted, the tokens behind the text up to and including it;
            empty for a token of the text.
        output: ``[hidden]``, the raw output of the last layer; or ``[taps, hidden]``, those of the
            layers that the drafter reads (`Drafter.taps`).
    """

    position: int
    path: tuple[int, ...]
    output: Tensor
