"""The LM head's linear layer, taken out of a model's forward: what goes in, and what comes behind.

A model may scale what enters its LM head, and cap, scale or shift the logits behind it. A stand-in
for the layer notes what enters, or returns given values in place of logits. So the model's own code
does the rest, whatever that is.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

WIDEST_LOGIT = 200.0  # no model's are wider, before they are capped
# What comes behind the head is rounded in float32: by so much of each value, bounds are widened.
ROUNDING = 2.0**-20


class LmHeadStandIn(nn.Module):
    """Runs the linear layer whose place it takes, or returns ``given`` in place of its output.

    Attributes:
        linear: the layer.
        entered: ``[1, n, hidden]``, its last input; None before the first.
        given: ``[1, n, columns]``, or None to run the layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.entered: Tensor | None = None
        self.given: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's own: some models ask for its dtype or device."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        return self.linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        self.entered = hidden
        output: Tensor = self.linear(hidden) if self.given is None else self.given
        return output


def stand_in_for(linear: nn.Linear, model: PreTrainedModel) -> LmHeadStandIn:
    """Put a stand-in in the place of a model's layer."""
    stand_in = LmHeadStandIn(linear)
    name = next(name for name, module in model.named_modules() if module is linear)
    model.set_submodule(name, stand_in)
    return stand_in


class Finish:
    """What a model does with logits behind its LM head.

    Attributes:
        usable: whether it treats every logit by itself and alike, and never decreases in it.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], vocabulary: int) -> None:
        """``run`` gives ``[n, columns]`` to the model in place of logits, and returns its own."""
        self._run = run
        given = torch.linspace(-WIDEST_LOGIT, WIDEST_LOGIT, vocabulary)[None]
        returned = run(given)
        self._changes = not torch.equal(returned, given)
        self.usable = not self._changes or self._is_usable(given, returned)

    def _is_usable(self, given: Tensor, returned: Tensor) -> bool:
        if returned.shape != given.shape or not bool(returned.isfinite().all()):
            return False
        half = given[:, ::2]
        slack = returned.abs() * ROUNDING
        for others, expected in (
            (self._run(given.flip(1)).flip(1), returned),
            (self._run(half), returned[:, ::2]),
        ):
            if not bool(((others - expected).abs() <= expected.abs() * ROUNDING).all()):
                return False
        return bool((returned[:, 1:] + slack[:, 1:] >= returned[:, :-1]).all())

    def of(self, logits: Tensor) -> Tensor:
        """Return finished logits ``[n, columns]``."""
        return self._run(logits) if self._changes else logits

    def bounds(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds of finished logits ``[n, columns]``, given those behind the LM head."""
        if not self._changes:
            return lower, upper
        lower, upper = self._run(lower), self._run(upper)
        return lower - lower.abs() * ROUNDING, upper + upper.abs() * ROUNDING
