"""Experts that are one parameter are stored in fewer bits, each weight as the nearest number."""

import pytest
import torch
from torch import nn

from swarm.model.quantization import INT8, NF4, Quantization, weight_bytes
from swarm.model.stored.experts import (
    expert_parameters,
    matrices,
    pack_matrix,
    store_in_fewer_bits,
)
from swarm.model.stored.nf4 import NUMBERS
from swarm.model.stored.packed import PackedTensor

EXPERTS, OUTPUTS, INPUTS = 3, 32, 64


class Experts(nn.Module):
    def __init__(self, turned: bool) -> None:
        super().__init__()
        shape = (EXPERTS, INPUTS, OUTPUTS) if turned else (EXPERTS, OUTPUTS, INPUTS)
        self.up = nn.Parameter(torch.empty(shape, device="meta"))
        self.bias = nn.Parameter(torch.zeros(EXPERTS, OUTPUTS))
        self.is_transposed = turned


def test_int8_is_symmetric_with_a_scale_a_row() -> None:
    matrix = torch.randn(OUTPUTS, INPUTS)
    matrix[3] = 0
    wide = pack_matrix(matrix, INT8).widen()
    steps = matrix.abs().amax(1, keepdim=True) / 127
    assert ((wide - matrix).abs() <= steps / 2 + 1e-6).all()
    assert (wide[3] == 0).all()


def test_nf4_is_the_nearest_of_sixteen_numbers() -> None:
    matrix = torch.randn(OUTPUTS, 2 * INPUTS)
    matrix[3] = 0
    wide = pack_matrix(matrix, NF4).widen()
    scales = matrix.view(OUTPUTS, 2, 64).abs().amax(-1, keepdim=True)
    meant = scales.unsqueeze(-1) * torch.tensor(NUMBERS)
    nearest = (matrix.view(OUTPUTS, 2, 64, 1) - meant).abs().amin(-1)
    error = (wide - matrix).view(OUTPUTS, 2, 64).abs()
    assert torch.allclose(error, nearest, atol=1e-6)


def test_nf4_is_that_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    matrix = torch.randn(OUTPUTS, INPUTS)
    theirs, state = functional.quantize_4bit(matrix, quant_type="nf4", blocksize=64)
    ours = dict(pack_matrix(matrix, NF4).form.parts)  # type: ignore[attr-defined]
    assert torch.equal(ours["weight"].flatten(), theirs.flatten())
    assert torch.equal(ours["weight.absmax"].flatten(), state.absmax.flatten())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("quantization", [INT8, NF4], ids=lambda each: each.name)
def test_a_module_stores_its_experts_so_when_they_are_set(
    turned: bool, quantization: Quantization
) -> None:
    module = Experts(turned)
    assert [name for _, name, _ in expert_parameters(module)] == ["up"]
    assert matrices(module, module.up) == [(OUTPUTS, INPUTS)] * EXPERTS
    store_in_fewer_bits(module, quantization)
    wide = torch.randn(module.up.shape)
    module.up = nn.Parameter(wide)
    assert isinstance(module.up, PackedTensor)
    assert module.up.shape == wide.shape
    for expert in range(EXPERTS):
        own = wide[expert].T if turned else wide[expert]
        expected = pack_matrix(own.contiguous(), quantization).widen()
        got = module.up[expert].detach()
        assert torch.equal((got.T if turned else got) + 0, expected)
    expected_bytes = EXPERTS * quantization.nbytes((OUTPUTS, INPUTS))
    assert weight_bytes(module) - module.bias.nbytes == pytest.approx(expected_bytes, rel=0.02)


def test_kernels_of_convolutions_are_no_experts() -> None:
    assert not list(expert_parameters(nn.Conv1d(64, 64, 4, groups=1)))
