"""Experts that are one parameter of a model, stored in 8 or 4 bits as they are read.

transformers quantizes linear layers, and leaves parameters that hold the matrices of all experts as
they are. These become packed tensors: one matrix after the other, on the CPU, from the checkpoint's
own values.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from swarm.model.quantization import INT8, NF4, Quantization, Shape
from swarm.model.stored.float8 import Scaled8Bit
from swarm.model.stored.layout import Layout
from swarm.model.stored.nf4 import NormalFloat4
from swarm.model.stored.packed import PackedTensor, packed

LEAST_SIDE = 16  # of an expert's matrix: kernels of convolutions have three dimensions, too
LARGEST_INT8 = 127


@dataclass(frozen=True)
class _Narrowing:
    layout: Layout
    narrow: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]


def _int8(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    wide = matrix.to(torch.float32)
    scales = wide.abs().amax(1, keepdim=True) / LARGEST_INT8
    numbers = (wide / torch.where(scales > 0, scales, 1)).round().to(torch.int8)
    return {"weight": numbers, "weight_scale": scales}


_NARROWINGS = {
    INT8.name: _Narrowing(Scaled8Bit("I8", "weight_scale", "F32", (1, None)), _int8),
    NF4.name: _Narrowing(NormalFloat4(), NormalFloat4().narrow),
}


def expert_parameters(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield the parameters [experts, rows, columns] in a module, with their owners and names."""
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.dim() == 3 and min(parameter.shape[1:]) >= LEAST_SIDE:
                yield owner, name, parameter


def matrices(owner: nn.Module, parameter: torch.Tensor) -> list[Shape]:
    """Return the shape [outputs, inputs] of each expert's matrix."""
    experts, rows, columns = parameter.shape
    return [(columns, rows) if _is_turned(owner) else (rows, columns)] * experts


def store_in_fewer_bits(module: nn.Module, quantization: Quantization) -> None:
    """Make a module store experts in fewer bits, from when the loader sets them."""
    for owner in {owner for owner, _, _ in expert_parameters(module)}:
        setattr(owner, "register_parameter", _packing(owner, quantization))  # noqa: B010


def pack_matrix(matrix: torch.Tensor, quantization: Quantization) -> PackedTensor:
    """Return a matrix [rows, columns] in fewer bits, to be widened to its own dtype."""
    own = _NARROWINGS[quantization.name]
    rows, columns = matrix.shape
    return packed(own.layout, own.narrow(matrix), (rows, columns), matrix.dtype)


def _packing(
    owner: nn.Module, quantization: Quantization
) -> Callable[[str, nn.Parameter | None], None]:
    names = {name for each, name, _ in expert_parameters(owner) if each is owner}

    def register(name: str, parameter: nn.Parameter | None) -> None:
        wide = parameter is not None and parameter.device.type != "meta"
        if name in names and parameter is not None and wide:
            if not isinstance(parameter, PackedTensor):
                parameter = nn.Parameter(_pack(owner, parameter, quantization), False)
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        nn.Module.register_parameter(owner, name, parameter)

    return register


def _pack(owner: nn.Module, parameter: torch.Tensor, quantization: Quantization) -> torch.Tensor:
    turned = _is_turned(owner)
    wide = parameter.detach().transpose(1, 2) if turned else parameter.detach()
    each: list[torch.Tensor] = [pack_matrix(matrix, quantization) for matrix in wide]
    stacked = torch.stack(each)
    return stacked.transpose(1, 2) if turned else stacked


def _is_turned(owner: nn.Module) -> bool:
    """Return whether the matrices of experts are [inputs, outputs]; transformers' own mark."""
    return bool(getattr(owner, "is_transposed", False))
