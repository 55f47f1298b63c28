"""Which linear layers of a model read the same input, such as those of queries, keys and values.

One product of all their weights takes less time than a product of each: a token of a small model
spends as much time between products as in them.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import groupby

import torch
from torch import Tensor, nn


@torch.inference_mode()
def same_input(model: nn.Module, run: Callable[[], object]) -> list[list[str]]:
    """Return the names of all linear layers of a model, in groups that read the same input.

    A layer that does not run, or more than once, is a group of its own.

    Args:
        run: a forward of the model, to see which layers follow each other on one tensor.
    """
    layers = {name: each for name, each in model.named_modules() if type(each) is nn.Linear}
    runs: list[tuple[str, Tensor]] = []
    with ExitStack() as stack:
        for name, layer in layers.items():

            def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                if inputs:
                    runs.append((name, inputs[0]))

            stack.callback(layer.register_forward_pre_hook(note).remove)
        run()
    times = Counter(name for name, _ in runs)
    once = [(name, read) for name, read in runs if times[name] == 1]
    groups = [
        [name for name, _ in group]
        for _, group in groupby(once, key=lambda run: (id(run[1]), layers[run[0]].weight.dtype))
    ]
    return [*groups, *([name] for name in layers if times[name] != 1)]
