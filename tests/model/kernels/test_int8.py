"""Products of int8 are exact, or not used; and used where they are the fastest."""

import os
import subprocess
import sys
import time

import pytest
import torch

from swarm.model.kernels import int8
from swarm.model.kernels.int8 import PACKS, Int8Product, Pack, Plain, fastest

MOST = 64
HAS_INT8_LINEAR = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
)


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize(("rows", "columns", "count"), [(3, 64, 1), (100, 576, 2), (33, 97, 17)])
def test_products_are_exact(pack: Pack, rows: int, columns: int, count: int) -> None:
    torch.manual_seed(1)
    matrix = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    factors = torch.randint(-MOST, MOST + 1, (count, columns), dtype=torch.int8)
    product = pack(matrix)(factors)
    assert torch.equal(product.double(), factors.double() @ matrix.double().t())


MULTIPLY = """
import torch
from swarm.model.kernels.int8 import Packed, _is_exact
assert _is_exact(Packed, 97, 64)
Packed(torch.ones(32, 64, dtype=torch.int8))(torch.ones(4, 64, dtype=torch.int8))
"""


@pytest.mark.skipif(not HAS_INT8_LINEAR, reason="this torch, or this processor, has no oneDNN")
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE_VNNI"])
def test_cpus_with_fewer_instructions_multiply_exactly_and_by_their_own(instructions: str) -> None:
    """oneDNN takes no instructions beyond those that it is told of."""
    told = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "ONEDNN_VERBOSE": "1"}
    command = [sys.executable, "-c", MULTIPLY]
    ended = subprocess.run(command, env=told, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    products = [line for line in ended.stdout.splitlines() if ",exec,cpu,matmul," in line]
    assert products
    assert not [line for line in products if ",ref" in line]


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


def emulated(matrix: torch.Tensor) -> Int8Product:
    """Return a product of one row a second, which must not be measured at full size."""
    assert len(matrix) <= int8.FEW
    return slow(matrix)


@pytest.mark.parametrize("pack", [Saturating, slow, emulated, absent])
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
