"""What a drafter is told of the target's answers."""

from dataclasses import dataclass

from torch import Tensor


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
