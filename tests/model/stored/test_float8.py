"""8-bit numbers are multiplied with the scale of their block, block by block as specified."""

import pytest
import torch

from swarm.model.stored.float8 import Scaled8Bit
from swarm.model.stored.layout import part_name


def widened_one_by_one(
    numbers: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]
) -> torch.Tensor:
    wide = torch.empty(numbers.shape, dtype=torch.float64)
    for row in range(numbers.shape[0]):
        for column in range(numbers.shape[1]):
            scale = scales[row // block[0], column // block[1]].double()
            wide[row, column] = numbers[row, column].double() * scale
    return wide


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((8, 12), (4, 4)),
        ((9, 13), (4, 4)),
        ((9, 13), (1, None)),
        ((9, 13), (None, None)),
        ((6, 64), (1, 32)),
        ((5, 6), (4, None)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_a_matrix_is_its_numbers_times_their_scales(
    shape: tuple[int, int], block: tuple[int | None, int | None], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    stored = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8"}
    layout = Scaled8Bit(stored[dtype], "weight_scale", "F32", block)
    numbers = (torch.randn(shape, generator=generator) * 40).to(dtype)
    scales = torch.rand(layout.shapes(shape)["weight_scale"].shape, generator=generator)
    parts = {"weight": numbers, "weight_scale": scales}
    edges = (block[0] or shape[0], block[1] or shape[1])
    expected = widened_one_by_one(numbers, scales, edges)
    for wide in (torch.float32, torch.bfloat16):
        assert torch.equal(layout.widen(parts, shape, wide), expected.float().to(wide))
    assert layout.nbytes(shape) == numbers.nbytes + scales.nbytes


def test_scales_may_be_exponents() -> None:
    layout = Scaled8Bit("F8_E4M3", "weight_scale_inv", "U8", (1, 2))
    numbers = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).to(torch.float8_e4m3fn)
    exponents = torch.tensor([[127, 130]], dtype=torch.uint8)
    for scales in (exponents, exponents.view(torch.float8_e8m0fnu)):
        parts = {"weight": numbers, "weight_scale_inv": scales}
        assert layout.widen(parts, (1, 4), torch.float32).tolist() == [[1, 2, 24, 32]]


def test_names_of_parts() -> None:
    assert part_name("mlp.up_proj.weight", "weight_scale_inv") == "mlp.up_proj.weight_scale_inv"
    assert part_name("mlp.experts.up_proj", "weight_blocks") == "mlp.experts.up_proj_blocks"
    assert part_name("mlp.up_proj.weight", "qzeros") == "mlp.up_proj.qzeros"


@pytest.mark.parametrize(
    ("dtype", "block", "words"),
    [
        ("F8_E4M3", (128, 128), "fp8, blocks of 128 x 128"),
        ("F8_E4M3", (None, None), "fp8, one scale a matrix"),
        ("I8", (1, None), "int8, one scale a row"),
    ],
)
def test_a_layout_has_a_name(dtype: str, block: tuple[int | None, int | None], words: str) -> None:
    assert Scaled8Bit(dtype, "weight_scale", "F32", block).name == words
