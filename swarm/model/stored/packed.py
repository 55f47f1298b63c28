"""A parameter that keeps its stored bytes and is widened when it is multiplied.

It takes the place of the wide parameter in any model: its shape and dtype are those of the wide
one. Only a few operations know that it is packed: those with which transformers' loader puts
parameters together, and products. Products with experts widen the experts that were hit, one after
the other. Every other operation gets the wide tensor, so that no model is ever computed wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from swarm.model.stored.forms import Form, Joined, Matrix, Stack
from swarm.model.stored.layout import Layout

aten = torch.ops.aten


class PackedTensor(torch.Tensor):
    """A wide tensor [rows, columns] or [n, rows, columns] that is kept as its stored parts.

    Attributes:
        form: what it is made of.
    """

    form: Form
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, form: Form, dtype: torch.dtype) -> "PackedTensor":
        device = next(form.tensors()).device
        tensor: PackedTensor = torch.Tensor._make_wrapper_subclass(
            cls, form.shape, dtype=dtype, device=device
        )
        return tensor

    def __init__(self, form: Form, dtype: torch.dtype) -> None:
        self.form = form
        for name, part in zip(self._part_names(), form.tensors(), strict=True):
            setattr(self, name, part)

    def widen(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the wide tensor, in its own dtype by default."""
        return self.form.widen(dtype or self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PackedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def _part_names(self) -> list[str]:
        return [f"part_{index}" for index, _ in enumerate(self.form.tensors())]

    # By these two, `nn.Module.to` exchanges the whole object, and `weight_bytes` finds the parts.
    def __tensor_flatten__(self) -> tuple[list[str], tuple[Form, torch.dtype]]:
        return self._part_names(), (self.form, self.dtype)

    @staticmethod
    def __tensor_unflatten__(
        parts: Mapping[str, torch.Tensor],
        context: tuple[Form, torch.dtype],
        outer_size: Sequence[int],
        outer_stride: Sequence[int],
    ) -> "PackedTensor":
        form, dtype = context
        in_order = iter(parts.values())
        return PackedTensor(form.map(lambda _: next(in_order)), dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # A view of a normal tensor must not be an inference tensor.
        if func.is_view and torch.is_inference_mode_enabled():
            with torch.inference_mode(False):
                return _run(func, args, kwargs or {})
        return _run(func, args, kwargs or {})


def packed(
    layout: Layout, parts: Mapping[str, torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> PackedTensor:
    """Return a matrix [rows, columns] of these parts, which is widened to a dtype when used."""
    return PackedTensor(Matrix(layout, dict(parts), shape), dtype)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    way = WAYS.get(func) or NAMED_WAYS.get(func.name())
    result = way(*args, **kwargs) if way is not None else NotImplemented
    if result is NotImplemented:
        return func(*tree_map(_wide, args), **tree_map(_wide, kwargs))
    return result


def _wide(value: Any) -> Any:
    return value.widen() if isinstance(value, PackedTensor) else value


def _same(tensor: PackedTensor, **_: Any) -> PackedTensor:
    return PackedTensor(tensor.form, tensor.dtype)


def _to(tensor: PackedTensor, **options: Any) -> Any:
    dtype = options.get("dtype") or tensor.dtype
    device = options.get("device") or tensor.device
    if not dtype.is_floating_point:
        return NotImplemented
    blocking = not options.get("non_blocking", False)
    return PackedTensor(
        tensor.form.map(lambda part: part.to(device, non_blocking=not blocking)), dtype
    )


def _select(tensor: PackedTensor, dim: int, index: int) -> Any:
    if tensor.dim() != 3 or dim not in (0, -3):
        return NotImplemented
    return PackedTensor(tensor.form.at(int(index)), tensor.dtype)


def _unbind(tensor: PackedTensor, dim: int = 0) -> Any:
    if tensor.dim() != 3 or dim not in (0, -3):
        return NotImplemented
    return [_select(tensor, 0, index) for index in range(len(tensor))]


def _transpose(tensor: PackedTensor, first: int, second: int) -> Any:
    if {first % tensor.dim(), second % tensor.dim()} != {tensor.dim() - 2, tensor.dim() - 1}:
        return NotImplemented
    return PackedTensor(tensor.form.turned(), tensor.dtype)


def _turn(tensor: PackedTensor) -> Any:
    if tensor.dim() != 2:
        return NotImplemented
    return PackedTensor(tensor.form.turned(), tensor.dtype)


def _stack(tensors: Sequence[torch.Tensor], dim: int = 0) -> Any:
    forms = _forms(tensors)
    if not forms or dim != 0 or any(len(form.shape) != 2 for form in forms):
        return NotImplemented
    if len({form.shape for form in forms}) != 1:
        return NotImplemented
    return PackedTensor(Stack(forms), tensors[0].dtype)


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Any:
    forms = _forms(tensors)
    if not forms or dim % tensors[0].dim() != tensors[0].dim() - 2:
        return NotImplemented
    if len({(*form.shape[:-2], form.shape[-1]) for form in forms}) != 1:
        return NotImplemented
    return PackedTensor(Joined(forms), tensors[0].dtype)


def _forms(tensors: Sequence[torch.Tensor]) -> tuple[Form, ...]:
    """Return the forms of these tensors; none unless all of them are packed."""
    forms = tuple(each.form for each in tensors if isinstance(each, PackedTensor))
    return forms if len(forms) == len(tensors) else ()


def _linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    form = _factor(inputs, weight, dim=2)
    return NotImplemented if form is None else form.linear(inputs, bias)


def _matmul(inputs: torch.Tensor, weight: torch.Tensor) -> Any:
    form = _factor(inputs, weight, dim=2)
    return NotImplemented if form is None else form.turned().linear(inputs)


def _bmm(inputs: torch.Tensor, weight: torch.Tensor) -> Any:
    form = _factor(inputs, weight, dim=3)
    if form is None or inputs.shape[0] != weight.shape[0]:
        return NotImplemented
    output = inputs.new_zeros((*inputs.shape[:2], weight.shape[2]))
    hit = (inputs != 0).flatten(1).any(1).tolist()  # zeros give zeros, whatever the expert is
    for index in (index for index, is_hit in enumerate(hit) if is_hit):
        output[index] = form.at(index).turned().linear(inputs[index])
    return output


def _grouped_mm(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Any:
    """Multiply groups of rows [n, in] with the matrices [experts, in, out] that they belong to.

    Group i ends before row ``offs[i]``. Rows behind the last group become zeros.
    """
    form = _factor(inputs, weight, dim=3)
    if form is None or offs is None or inputs.dim() != 2 or bias is not None or out_dtype:
        return NotImplemented
    output = inputs.new_zeros((inputs.shape[0], weight.shape[2]))
    start = 0
    for index, end in enumerate(offs.tolist()):
        if start < end:
            output[start:end] = form.at(index).turned().linear(inputs[start:end])
        start = end
    return output


def _factor(inputs: torch.Tensor, weight: torch.Tensor, dim: int) -> Form | None:
    """Return the form of a packed weight that plain inputs of its dtype are multiplied with."""
    if isinstance(inputs, PackedTensor) or not isinstance(weight, PackedTensor):
        return None
    return weight.form if weight.dim() == dim and inputs.dtype == weight.dtype else None


WAYS: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _same,
    aten._to_copy.default: _to,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.transpose.int: _transpose,
    aten.t.default: _turn,
    aten.numpy_T.default: _turn,
    aten.mT.default: lambda tensor: _transpose(tensor, -1, -2),
    aten.stack.default: _stack,
    aten.cat.default: _cat,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _bmm,
    aten._grouped_mm.default: _grouped_mm,
}
"""Operations that know packed tensors; they return NotImplemented for what they do not know."""

# By its name, because transformers registers it when it is imported: for older GPUs.
NAMED_WAYS = {"transformers::grouped_mm_fallback": _grouped_mm}
