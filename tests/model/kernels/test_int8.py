"""Products of int8 are exact, or not used; and used where they are the fastest."""

import time

import pytest
import torch

from swarm.model.kernels import int8
from swarm.model.kernels.int8 import PACKS, Int8Product, Pack, Plain, fastest

MOST = 64


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize(("rows", "columns", "count"), [(3, 64, 1), (100, 576, 2), (33, 97, 17)])
def test_products_are_exact(pack: Pack, rows: int, columns: int, count: int) -> None:
    torch.manual_seed(1)
    matrix = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    factors = torch.randint(-MOST, MOST + 1, (count, columns), dtype=torch.int8)
    product = pack(matrix)(factors)
    assert torch.equal(product.double(), factors.double() @ matrix.double().t())


class Saturating(Plain):
    """As instructions that add two products in 16 bits."""

    def __call__(self, factors: torch.Tensor) -> torch.Tensor:
        pairs = (self.matrix.int()[None] * factors.int()[:, None]).unflatten(-1, (-1, 2)).sum(-1)
        return pairs.clamp(-(2**15), 2**15 - 1).sum(-1).float() * 0.5 ** (pairs.max() > 2**13)


def compute_for_long() -> None:
    until_s = time.thread_time() + 0.1
    while time.thread_time() < until_s:
        pass


def slow(matrix: torch.Tensor) -> Int8Product:
    product = Plain(matrix)

    def multiplied(factors: torch.Tensor) -> torch.Tensor:
        compute_for_long()
        return product(factors)

    return multiplied


def absent(matrix: torch.Tensor) -> Int8Product:
    raise RuntimeError("this computer has no such instruction")


@pytest.mark.parametrize("pack", [Saturating, slow, absent])
def test_what_is_wrong_or_slow_or_absent_is_not_used(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "PACKS", (pack,))
    assert fastest(torch.ones(512, 64), MOST, 2) is None


def test_what_is_faster_than_float32_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.nn.functional.linear

    def waiting(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        compute_for_long()
        return real(values, weight)

    monkeypatch.setattr(int8, "PACKS", (slow, Plain, absent))
    monkeypatch.setattr(torch.nn.functional, "linear", waiting)
    assert fastest(torch.ones(512, 64), MOST, 2) is Plain


@pytest.mark.parametrize(
    ("times_s", "place"),
    [((3.0, 1.0, 1.0), 0), ((3.0, 1.0, 0.6), 0), ((3.0, 1.0, 0.4), 1), ((1.0, 2.0, 0.9), 1)],
)
def test_a_later_way_has_to_be_clearly_faster(
    times_s: tuple[float, ...], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = [lambda matrix: Plain(matrix), lambda matrix: Plain(matrix)]
    monkeypatch.setattr(int8, "PACKS", ways)
    monkeypatch.setattr(int8, "least_in_turn_s", lambda works, repeats: times_s)
    assert fastest(torch.ones(64, 64), MOST, 2) is ways[place]
