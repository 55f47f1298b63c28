"""What layers of a model in this process give, as peers tell it to a client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CaughtOutputs:
    """The outputs of some layers in one forward, ``[tokens, hidden]`` each."""

    def __init__(self) -> None:
        self._caught: list[Tensor] = []

    def catch(self, layer: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        """Take the output of a layer: a forward hook."""
        rows = output if isinstance(output, Tensor) else output[0]
        self._caught.append(rows.flatten(0, -2))

    @property
    def stacked(self) -> Tensor:
        """``[tokens, layers, hidden]`` float32, on the CPU."""
        return torch.stack(self._caught, dim=1).float().cpu()


@contextmanager
def layer_outputs(layers: nn.ModuleList, taps: Sequence[int]) -> Iterator[CaughtOutputs]:
    """Catch the outputs of the tapped layers in a forward; of the last one if none is tapped.

    Args:
        taps: ascending.
    """
    outputs = CaughtOutputs()
    hooks = [layers[layer].register_forward_hook(outputs.catch) for layer in taps or (-1,)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
