"""Outputs of layers within a span, caught while it runs: see `swarm.wire.taps`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from swarm.wire.taps import LayerOutputs, TapTerms


@dataclass(eq=False)
class Taps:
    """Layers whose outputs are wanted at the last tokens of one work.

    Attributes:
        terms: the work runs all of their layers.
        tokens: how many of the last tokens.
        outputs: of these tokens, in order; empty before the work has run, and of a model whose
            layers give something else than one row a token.
    """

    terms: TapTerms
    tokens: int
    outputs: tuple[LayerOutputs, ...] = ()


@dataclass(eq=False)
class _Wanted:
    """The taps of one work, and where its tokens lie in the packed row."""

    taps: Taps
    rows: slice
    caught: dict[int, torch.Tensor] = field(default_factory=dict)  # by layer


class TapHooks:
    """Hooks on layers that were tapped once. Where nothing is wanted, they cost a look each.

    Args:
        layers: of the whole model; those that are tapped must be there.
        hidden_size: of a row of their outputs.
    """

    def __init__(self, layers: Any, hidden_size: int) -> None:
        self._layers = layers
        self._hidden_size = hidden_size
        self._hooked: set[int] = set()
        self._wanted: list[_Wanted] = []

    @contextmanager
    def catching(self, works: Sequence[tuple[Taps | None, int]]) -> Iterator[None]:
        """While open, catch what the works of one forward want; fill in their taps at the end.

        Args:
            works: the taps of each, and how many tokens it has in the packed row.
        """
        end = 0
        for taps, count in works:
            end += count
            if taps is not None and taps.tokens:
                self._wanted.append(_Wanted(taps, slice(end - taps.tokens, end)))
                self._hook(taps.terms.layers)
        try:
            yield
            for wanted in self._wanted:
                wanted.taps.outputs = self._outputs(wanted)
        finally:
            self._wanted.clear()

    def _hook(self, layers: Sequence[int]) -> None:
        for layer in layers:
            if layer not in self._hooked:
                self._hooked.add(layer)
                self._layers[layer].register_forward_hook(partial(self._catch, layer))

    def _catch(self, layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        for wanted in self._wanted:
            if layer in wanted.taps.terms.layers:
                states = output[0] if isinstance(output, tuple) else output
                wanted.caught[layer] = states[0, wanted.rows]

    def _outputs(self, wanted: _Wanted) -> tuple[LayerOutputs, ...]:
        terms = wanted.taps.terms
        caught = [wanted.caught[layer] for layer in terms.layers if layer in wanted.caught]
        whole = (wanted.taps.tokens, self._hidden_size)
        if len(caught) < len(terms.layers) or any(states.shape != whole for states in caught):
            return ()
        return LayerOutputs.pack(torch.stack(caught, dim=1), terms.float8)
