"""Modules that keep states are found, and run on each session of a packed row by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from swarm.model.masks import NotPackable
from swarm.model.recurrent.interface import StateAccess
from swarm.model.recurrent.mixers import Mixers, find_mixers
from swarm.model.recurrent.states import States

WIDTH = 3


class Sum(nn.Module):
    """Each token becomes the sum of all tokens up to it. The sum so far is its state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []

    def forward(self, hidden: torch.Tensor, access: Any, scale: torch.Tensor) -> Any:
        self.calls.append(tuple(hidden.shape[:2]))
        before = access.get_recurrent_state(0)
        sums = (hidden * scale).cumsum(1)
        if before is not None:
            sums = sums + before[:, None]
        access.update_recurrent_state(sums[:, -1], 0)
        return sums, before


class Noting(nn.Module):
    """A module that keeps a tensor of each forward, which is no state."""

    def __init__(self) -> None:
        super().__init__()
        self.last: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.last = hidden
        return hidden


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = Sum()
        self.noting = Noting()

    def forward(self, hidden: torch.Tensor, access: Any) -> torch.Tensor:
        return self.noting(self.mixer(hidden, access, scale=torch.ones_like(hidden))[0])


class Model(nn.Module):
    """One layer, whose states a test hands in."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer()])
        self.now: StateAccess | None = None

    @contextmanager
    def reading(self, states: list[States], counts: list[int]) -> Iterator[StateAccess]:
        self.now = StateAccess(states, counts)
        try:
            yield self.now
        finally:
            self.now = None

    def read(self, states: list[States], tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        counts = [len(each) for each in tokens]
        with self.reading(states, counts) as access:
            row = self.layers[0](torch.cat(tokens)[None], access)
        for each, inputs in zip(states, tokens, strict=True):
            each.advance(inputs)
        return list(row[0].split(counts))

    def found(self, by_attribute: bool) -> list[str]:
        def run(states: States) -> None:
            self.read([states], [torch.ones(2, WIDTH)])

        return [each.name for each in find_mixers(self, "layers", run, by_attribute)]


@pytest.fixture
def model() -> Model:
    model = Model()

    def run(states: States) -> None:
        model.read([states], [torch.ones(2, WIDTH)])

    model.mixers = Mixers(find_mixers(model, "layers", run, False), lambda: model.now)  # type: ignore[assignment]
    model.layers[0].mixer.calls.clear()
    return model


def test_who_asks_for_a_state_keeps_one() -> None:
    assert Model().found(by_attribute=False) == ["layers.0.mixer"]
    assert Model().found(by_attribute=True) == ["layers.0.mixer", "layers.0.noting"]


def test_sessions_of_a_packed_row_do_not_meet(model: Model) -> None:
    states = [States() for _ in range(3)]
    texts = [torch.randn(9, WIDTH) for _ in states]
    at = [0, 0, 0]
    for counts in ([2, 1, 2], [1, 1, 1], [3, 1, 1], [1, 1, 3]):
        pieces = [text[a : a + n] for text, a, n in zip(texts, at, counts, strict=True)]
        outputs = model.read(states, pieces)
        at = [a + n for a, n in zip(at, counts, strict=True)]
        for text, a, n, output in zip(texts, at, counts, outputs, strict=True):
            torch.testing.assert_close(output, text.cumsum(0)[a - n : a])
    # Those with equally many tokens, of which all have a state or none, ran as one batch.
    calls = [(2, 2), (1, 1), (3, 1), (1, 3), (2, 1), (2, 1), (1, 3)]
    assert model.layers[0].mixer.calls == calls


def test_one_token_at_a_time_once_there_is_a_state(model: Model) -> None:
    model.mixers.stepwise = True
    states = [States(), States()]
    texts = [torch.randn(5, WIDTH) for _ in states]
    model.read(states, [text[:2] for text in texts])
    outputs = model.read(states, [text[2:] for text in texts])
    for text, output in zip(texts, outputs, strict=True):
        torch.testing.assert_close(output, text.cumsum(0)[2:])
    assert model.layers[0].mixer.calls == [(2, 2), (2, 1), (2, 1), (2, 1)]


def test_what_returns_no_row_for_each_token_is_not_packed(model: Model) -> None:
    whole = Sum.forward

    def last_alone(self: Sum, *args: Any, **kwargs: Any) -> Any:
        return whole(self, *args, **kwargs)[0][:, -1]

    odd = Model()
    odd.layers[0].mixer.forward = last_alone.__get__(odd.layers[0].mixer)

    def run(states: States) -> None:
        with odd.reading([states], [2]) as access:
            odd.layers[0].mixer(torch.ones(1, 2, WIDTH), access, torch.ones(1))

    Mixers(find_mixers(odd, "layers", run, False), lambda: odd.now)
    with pytest.raises(NotPackable), odd.reading([States(), States()], [2, 1]) as access:
        odd.layers[0].mixer(torch.ones(1, 3, WIDTH), access, torch.ones(1))
