"""The modules that keep states, made to run in a packed row: each session by itself.

A packed row holds the tokens of several sessions side by side. Linear layers, experts and packed
attention take it as it is; a module that carries a state from token to token must not. `Mixers`
gives it the sessions apart: those with equally many tokens as one batch, the others one after
another. This module knows no architecture by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from swarm.model.masks import NotPackable
from swarm.model.recurrent.interface import StateAccess
from swarm.model.recurrent.states import StateKey, States

# What configurations call layers that may keep states.
KINDS = frozenset({"linear_attention", "conv", "hybrid", "hybrid_sliding", "mamba", "recurrent"})


@dataclass(frozen=True, eq=False)
class Mixer:
    """A module that keeps states.

    Attributes:
        name: in the model.
        attributes: where it keeps its states itself instead of in the cache, the modules and their
            attributes that hold them.
    """

    name: str
    module: nn.Module
    attributes: tuple[tuple[nn.Module, str], ...] = ()


class Mixers:
    """The modules of a span that keep states, each made to run on one session at a time.

    Args:
        current: returns the states of the forward that runs; None outside of one.

    Attributes:
        stepwise: whether they get one token at a time once they have a state, because they would
            lose it before several.
    """

    def __init__(self, mixers: Sequence[Mixer], current: Callable[[], StateAccess | None]) -> None:
        self.stepwise = False
        self._current = current
        for mixer in mixers:
            mixer.module.forward = partial(self._run, mixer, mixer.module.forward)

    def _run(self, mixer: Mixer, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the module's own `forward` on every session of a packed row [1, total, ...]."""
        access = self._current()
        if access is None:
            return forward(*args, **kwargs)
        ran: list[_Ran] = []
        for group in _groups(access):
            access.serving = group
            shape = (len(group), access.counts[group[0]])
            own = _of_sessions((args, kwargs), access.counts, group)
            parts = [own]
            if self.stepwise and access.begun(group[0]):
                parts = [_column(own, shape, index) for index in range(shape[1])]
            outputs = []
            for part in parts:
                with _states_in_place(mixer, access):
                    outputs.append(forward(*part[0], **part[1]))
            ran.append(_Ran(group, outputs, (len(group), shape[1] // len(parts))))
        access.serving = (0,)
        return _side_by_side(ran)


@dataclass(frozen=True, eq=False)
class _Ran:
    """What a mixer has returned for some sessions: `outputs` one behind the other in the text.

    The tensors that have a row for each token are [sessions, n, ...], of this `shape`.
    """

    sessions: tuple[int, ...]
    outputs: list[Any]
    shape: tuple[int, int]

    def element(self, index: int) -> "_Ran":
        """Return the same with one element of each output, which is a tuple."""
        return replace(self, outputs=[output[index] for output in self.outputs])


def may_keep_states(config: PreTrainedConfig) -> bool:
    """Return whether some layers may keep states, by what the configuration calls them."""
    fields = ("layer_types", "layers_block_type", "block_types")
    kinds = [kind for field in fields for kind in getattr(config, field, None) or ()]
    return not KINDS.isdisjoint(kinds)


def find_mixers(
    model: nn.Module, layers: str, run: Callable[[States], object], by_attribute: bool
) -> list[Mixer]:
    """Find the modules that keep states, by running the layers once.

    Args:
        layers: the name of the list of layers.
        run: runs them with these states, which are empty.
        by_attribute: whether a tensor that a module keeps as an attribute is a state, too
            (RecurrentGemma). Of other models it is a note or a table.
    """
    inside = [(name, each) for name, each in model.named_modules() if name.startswith(f"{layers}.")]
    before = {
        (name, attribute): value for name, each in inside for attribute, value in vars(each).items()
    }
    watched = _Watched()
    hooks = []
    for name, each in inside:
        hooks.append(each.register_forward_pre_hook(partial(watched.enter, name)))
        hooks.append(each.register_forward_hook(watched.leave))
    try:
        run(watched)
    finally:
        for hook in hooks:
            hook.remove()
    attributes: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in watched.askers}
    for name, each in inside if by_attribute else ():
        for attribute, value in list(vars(each).items()):
            key = (name, attribute)
            if isinstance(value, torch.Tensor) and key in before and value is not before[key]:
                attributes.setdefault(name, []).append((each, attribute))
                setattr(each, attribute, None)
    return list(_outermost(model, attributes))


class _Watched(States):
    """States that note which modules ask for them."""

    def __init__(self) -> None:
        super().__init__()
        self.askers: set[str] = set()
        self._running: list[str] = []

    def enter(self, name: str, *_: object) -> None:
        self._running.append(name)

    def leave(self, *_: object) -> None:
        self._running.pop()

    def get(self, key: StateKey) -> torch.Tensor | None:
        self.askers.update(self._running[-1:])
        return super().get(key)

    def put(self, key: StateKey, state: torch.Tensor) -> None:
        self.askers.update(self._running[-1:])
        super().put(key, state)


def _outermost(
    model: nn.Module, attributes: Mapping[str, Sequence[tuple[nn.Module, str]]]
) -> Iterator[Mixer]:
    """Yield a mixer for each of these modules that is not a part of another one."""
    names = sorted(attributes)
    outer = [a for a in names if not any(a.startswith(f"{b}.") for b in names)]
    for name in outer:
        parts = [part for part in names if part == name or part.startswith(f"{name}.")]
        own = tuple(each for part in parts for each in attributes[part])
        yield Mixer(name, model.get_submodule(name), own)


@contextmanager
def _states_in_place(mixer: Mixer, access: StateAccess) -> Iterator[None]:
    """While open, the module's own attributes hold the states of the sessions that are served."""
    keys: list[StateKey] = [(mixer.name, name, i) for i, (_, name) in enumerate(mixer.attributes)]
    for key, (module, name) in zip(keys, mixer.attributes, strict=True):
        setattr(module, name, access.get_state(key))
    try:
        yield
        for key, (module, name) in zip(keys, mixer.attributes, strict=True):
            access.put_state(key, getattr(module, name))
    finally:
        for module, name in mixer.attributes:
            setattr(module, name, None)


def _groups(access: StateAccess) -> list[tuple[int, ...]]:
    """Return the sessions that can run as one batch: of as many tokens, and all begun or none."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for session, count in enumerate(access.counts):
        groups.setdefault((count, access.begun(session)), []).append(session)
    return [tuple(group) for group in groups.values()]


def _of_sessions(value: Any, counts: Sequence[int], group: Sequence[int]) -> Any:
    """Return arguments with only the rows of these sessions: [1, total, ...] -> [group, n, ...]."""

    def of_sessions(tensor: torch.Tensor) -> torch.Tensor:
        if len(counts) == 1 or tensor.shape[:2] != (1, sum(counts)):
            return tensor
        parts = tensor.split_with_sizes(list(counts), dim=1)
        return torch.cat([parts[session] for session in group])

    return _mapped(of_sessions, value)


def _column(value: Any, shape: tuple[int, int], index: int) -> Any:
    """Return arguments with one token of each session: [group, n, ...] -> [group, 1, ...]."""

    def column(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:, index : index + 1] if _has_rows(tensor, shape) else tensor

    return _mapped(column, value)


def _has_rows(value: Any, shape: tuple[int, int]) -> bool:
    return isinstance(value, torch.Tensor) and value.shape[:2] == shape


def _mapped(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(function, each) for each in value)
    if isinstance(value, dict):
        return {name: _mapped(function, each) for name, each in value.items()}
    return value


def _side_by_side(ran: Sequence[_Ran]) -> Any:
    """Return outputs as of one packed row, [1, total, ...]: a tensor, or a tuple with such.

    Others, such as a state that a module also returns, become None.

    Raises:
        NotPackable: if a module returns something else.
    """
    first = ran[0].outputs[0]
    if len(ran) == len(ran[0].outputs) == len(ran[0].sessions) == 1:
        return first
    if isinstance(first, torch.Tensor):
        return _row(ran)
    if not isinstance(first, tuple):
        raise NotPackable("its recurrent layers return something else than tensors")
    return tuple(_row([each.element(i) for each in ran], needed=i == 0) for i in range(len(first)))


def _row(ran: Sequence[_Ran], needed: bool = True) -> torch.Tensor | None:
    """Return outputs as one tensor [1, total, ...], in the order of the sessions.

    None if they do not have a row for each token; NotPackable if that is `needed`.
    """
    parts: dict[int, torch.Tensor] = {}
    for each in ran:
        if not all(_has_rows(output, each.shape) for output in each.outputs):
            if needed:
                raise NotPackable("its recurrent layers do not return a row for each token")
            return None
        whole = each.outputs[0] if len(each.outputs) == 1 else torch.cat(each.outputs, dim=1)
        parts.update(zip(each.sessions, whole.split(1), strict=True))
    return torch.cat([parts[session] for session in sorted(parts)], dim=1)
