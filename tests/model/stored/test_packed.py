"""A packed parameter is a wide one to every operation, and stays packed in those of a loader."""

from collections.abc import Callable, Mapping

import pytest
import torch
import transformers.integrations.moe  # noqa: F401 (registers an operation)
from torch import nn
from torch.nn import functional

from swarm.model.folder import Stored
from swarm.model.quantization import weight_bytes
from swarm.model.stored.layout import Layout
from swarm.model.stored.packed import PackedTensor, packed

ROWS, COLUMNS, EXPERTS = 8, 6, 4


class Counting(Layout):
    """int8 numbers that count how often they are widened."""

    name = "int8"
    parts = ("weight",)

    def __init__(self) -> None:
        self.widened = 0

    def shapes(self, shape: tuple[int, int]) -> dict[str, Stored]:
        return {"weight": Stored("I8", shape)}

    def widen(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        self.widened += 1
        return parts["weight"].to(dtype)


def matrix(layout: Layout, seed: int) -> tuple[PackedTensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-9, 9, (ROWS, COLUMNS), dtype=torch.int8, generator=generator)
    tensor = packed(layout, {"weight": numbers}, (ROWS, COLUMNS), torch.float32)
    return tensor, numbers.float()


def experts(layout: Layout) -> tuple[PackedTensor, torch.Tensor]:
    """Gates and up-projections [experts, 2 * rows, columns], as transformers' loader joins them."""
    pairs = [matrix(layout, seed) for seed in range(2 * EXPERTS)]
    gates, ups = pairs[:EXPERTS], pairs[EXPERTS:]

    def join(which: int) -> torch.Tensor:
        stacks = [torch.stack([pair[which] for pair in half]) for half in (gates, ups)]
        return torch.cat(stacks, dim=1)

    joined = join(0)
    assert isinstance(joined, PackedTensor)
    return joined, join(1)


@pytest.fixture(params=[torch.inference_mode, torch.no_grad])
def without_gradients(request: pytest.FixtureRequest) -> Callable[[], object]:
    return request.param  # type: ignore[no-any-return]


def test_products_are_those_of_the_wide_matrix(without_gradients: type[torch.no_grad]) -> None:
    tensor, wide = matrix(Counting(), 0)
    layer = nn.Linear(COLUMNS, ROWS)
    layer.weight = nn.Parameter(tensor)
    layer.requires_grad_(False)
    inputs = torch.randn(2, 3, COLUMNS)
    with without_gradients():
        assert torch.equal(layer(inputs), functional.linear(inputs, wide, layer.bias))
        assert torch.equal(inputs @ layer.weight.T, inputs @ wide.T)
        assert torch.equal(inputs @ layer.weight.mT, inputs @ wide.mT)
        assert torch.equal(inputs[0] @ layer.weight.t(), inputs[0] @ wide.t())


@pytest.mark.parametrize(
    "use",
    [
        lambda tensor: tensor.view(-1, 3),
        lambda tensor: tensor.reshape(3, -1),
        lambda tensor: tensor * 2 + 1,
        lambda tensor: tensor.chunk(2, dim=0)[1],
        lambda tensor: tensor.T.contiguous(),
        lambda tensor: tensor[2:5, 1],
        lambda tensor: tensor[torch.tensor([1, 3])],
        lambda tensor: tensor.sum(),
        lambda tensor: functional.embedding(torch.tensor([1, 0]), tensor),
        lambda tensor: torch.stack([tensor, torch.zeros(ROWS, COLUMNS)]),
        lambda tensor: torch.cat([tensor, tensor], dim=1),
    ],
)
def test_every_other_operation_gets_the_wide_tensor(
    use: Callable[[torch.Tensor], torch.Tensor], without_gradients: type[torch.no_grad]
) -> None:
    tensor, wide = matrix(Counting(), 0)
    with without_gradients():
        got = use(nn.Parameter(tensor, requires_grad=False))
        got = got.widen() if isinstance(got, PackedTensor) else got
        assert torch.equal(got, use(wide))


def test_only_the_experts_that_were_hit_are_widened(
    without_gradients: type[torch.no_grad],
) -> None:
    layout = Counting()
    tensor, wide = experts(layout)
    inputs = torch.randn(5, COLUMNS)
    ends = torch.tensor([2, 2, 5, 5], dtype=torch.int32)
    with without_gradients():
        for index in (1, torch.tensor(1)):
            got = functional.linear(inputs, tensor[index])
            torch.testing.assert_close(
                got, functional.linear(inputs, wide[1]), rtol=1e-5, atol=1e-4
            )
        assert layout.widened == 2 * 2  # a gate and an up-projection each
        for grouped in (functional.grouped_mm, torch.ops.transformers.grouped_mm_fallback):
            layout.widened = 0
            got = grouped(inputs, tensor.transpose(-2, -1), offs=ends)
            torch.testing.assert_close(got[:2], inputs[:2] @ wide[0].T, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(got[2:], inputs[2:] @ wide[2].T, rtol=1e-5, atol=1e-4)
            assert layout.widened == 2 * 2
        layout.widened = 0
        each = torch.randn(EXPERTS, 3, COLUMNS)
        each[[0, 3]] = 0
        got = torch.bmm(each, tensor.transpose(1, 2))
        torch.testing.assert_close(got, torch.bmm(each, wide.transpose(1, 2)), rtol=1e-5, atol=1e-4)
        assert layout.widened == 2 * 2


def test_it_takes_the_memory_of_its_parts_and_moves_as_one() -> None:
    layout = Counting()
    module = nn.Module()
    module.weight = nn.Parameter(experts(layout)[0])
    module.eval().requires_grad_(False).to("cpu")
    assert weight_bytes(module) == 2 * EXPERTS * ROWS * COLUMNS
    moved = module.to("meta").weight
    assert isinstance(moved, PackedTensor)
    assert moved.shape == (EXPERTS, 2 * ROWS, COLUMNS)
    assert {part.device.type for part in (moved, *moved.form.tensors())} == {"meta"}
    assert layout.widened == 0


def test_its_dtype_is_that_of_the_computation() -> None:
    tensor, wide = matrix(Counting(), 0)
    rounded = tensor.to(torch.bfloat16)
    assert isinstance(rounded, PackedTensor)
    assert rounded.dtype == rounded.widen().dtype == torch.bfloat16
    inputs = torch.randn(3, COLUMNS, dtype=torch.bfloat16)
    assert functional.linear(inputs, rounded).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        functional.linear(inputs, tensor)
    assert torch.equal(tensor.to(torch.int64), wide.to(torch.int64))
