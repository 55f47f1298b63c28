"""Linear layers in 8 bits: every kernel gives what the simple version gives, for any input."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.models import ARCHITECTURES
from swarm.model.branching import BranchingModel
from swarm.model.kernels import int8_linear
from swarm.model.kernels.int8 import PACKS
from swarm.model.kernels.int8_linear import (
    Int8Group,
    Int8Linear,
    cpu_kernel,
    half_product,
    integer_product,
    plain_product,
    store_in_int8,
)
from swarm.model.kernels.rounding import rounded_weight

# Relative errors. Steps of 1/127 of the largest weight are within the first, the 8 bits of a
# bfloat16 within the second.
ROUNDED = 0.02
IN_HALF = 0.01
IN_FOURTEEN_BITS = 1e-3


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("kernel", "tolerance"),
    [
        *((functools.partial(integer_product, pack), IN_FOURTEEN_BITS) for pack in PACKS),
        (half_product, IN_HALF),
    ],
)
def test_a_kernel_gives_what_the_simple_version_gives(kernel, tolerance: float) -> None:
    rounded, scale = rounded_weight(random(96, 128))
    x = random(2, 5, 128)
    try:
        product = kernel(rounded, scale)
        out = product(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        pytest.skip("this processor, or this torch, has no such kernel")
    expected = plain_product(rounded, scale)(x)
    assert out.shape == expected.shape == (2, 5, 96)
    assert out.dtype == torch.float32
    assert relative(out, expected) <= tolerance


@pytest.mark.parametrize(
    ("times_s", "place"), [((1.0, 1.0), 0), ((1.0, 0.9), 0), ((1.0, 0.5), 1), ((0.5, 1.0), 0)]
)
def test_a_later_kernel_has_to_be_clearly_faster(
    times_s: tuple[float, float], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = [lambda *parts: plain_product(*parts) for _ in times_s]
    monkeypatch.setattr(int8_linear, "KERNELS", kernels)
    monkeypatch.setattr(int8_linear, "least_in_turn_s", lambda works, repeats: times_s)
    assert cpu_kernel.__wrapped__() is kernels[place]


def test_the_fastest_kernel_is_a_right_one() -> None:
    weight, x = random(64, 128), random(4, 128)
    out = cpu_kernel()(*rounded_weight(weight))(x)
    assert relative(out, x @ weight.T) <= ROUNDED


def test_a_layer_adds_its_bias_and_copies_share_its_weights() -> None:
    layer = nn.Linear(32, 16)
    layer.bias.data.fill_(100.0)
    rounded = Int8Linear(layer)
    x = random(1, 4, 32)
    with torch.no_grad():
        assert relative(rounded(x), layer(x)) <= ROUNDED
    assert copy.deepcopy(rounded) is rounded


def test_layers_of_a_group_share_one_product_and_keep_nothing_of_it() -> None:
    layers = [nn.Linear(32, size) for size in (16, 8, 24)]
    layers[1] = nn.Linear(32, 8, bias=False)
    group = Int8Group(layers)
    products = []
    multiply = group._product
    group._product = lambda x: products.append(x) or multiply(x)
    rounded = [Int8Linear(layer, group, place) for place, layer in enumerate(layers)]
    for x in (random(1, 4, 32), random(2, 3, 32)):
        with torch.no_grad():
            for own, layer in zip(rounded, layers, strict=True):
                assert relative(own(x), layer(x)) <= ROUNDED
    assert len(products) == 2
    assert group._read is None
    assert group._outputs == [None, None, None]
    with torch.no_grad():
        assert relative(rounded[2](x), layers[2](x)) <= ROUNDED  # also out of its turn
        assert relative(rounded[2](x), layers[2](x)) <= ROUNDED


@pytest.mark.parametrize("name", ["llama_tied", "qwen3", "gemma2", "gpt_oss", "falcon"])
def test_a_model_in_int8_computes_nearly_the_same(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits
    branches = BranchingModel.of(model) is not None
    model.to(torch.bfloat16)
    store_in_int8(model)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    assert logits.dtype == torch.float32
    assert relative(logits, expected) <= 0.1
    # tied or not, the embedding is as it was read
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    others = {p.dtype for n, p in model.named_parameters() if "embed" not in n and "wte" not in n}
    assert others <= {torch.float32}
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert (BranchingModel.of(model) is not None) == branches
