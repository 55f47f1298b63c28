"""Linear layers whose weights are stored in 8 bits, for models that may be rounded: drafts.

A weight is one of 255 steps of its row's scale, and inputs keep 14 bits
(`swarm.model.kernels.rounding`). With 8-bit inputs alone, SmolLM2-135M chose another token than in
float32 at 17 % of the places of a text, and with 14 bits at 5 %.

Peers' `--quantization int8` (`swarm.model.quantization`) is another thing: it is part of a model's
fingerprint, by torchao, and every bit of it is prescribed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from swarm.model.kernels.fused_norm import fuse_norms
from swarm.model.kernels.int8 import FEW, PACKS, Pack
from swarm.model.kernels.measuring import is_hopeless, least_in_turn_s
from swarm.model.kernels.rounding import STEP, rounded_inputs, rounded_weight
from swarm.model.kernels.same_input import same_input

PROBE = (8, 4096, 1024)  # rows, outputs and inputs of the product that the kernels are tried with
PROBE_COPIES = 8  # of its weights: too many for the caches near the cores
PROBE_TOLERANCE = 0.02  # relative error; rounded weights and inputs make less than 0.01
PROBE_RUNS = 4
PROBE_WORTH = 1.5  # a later kernel, with less exact inputs, must be faster by this factor

Product = Callable[[Tensor], Tensor]
"""Multiplies ``[..., inputs]`` by a rounded weight: -> float32 ``[..., outputs]``."""
Kernel = Callable[[Tensor, Tensor], Product]
"""Makes a product of a weight in int8 and the scales of its rows."""


def integer_product(pack: Pack, rounded: Tensor, scale: Tensor) -> Product:
    """Return a product of 8-bit integers.

    Raises what torch raises where it has no such kernel.
    """
    integers = pack(rounded)

    def product(x: Tensor) -> Tensor:
        terms, scales = rounded_inputs(x.reshape(-1, x.shape[-1]).float())
        coarse, fine = integers(terms).chunk(2)
        out: Tensor = torch.add(coarse, fine, alpha=1 / STEP).mul_(scale).mul_(scales)
        return out.view(*x.shape[:-1], -1)

    return product


def half_product(rounded: Tensor, scale: Tensor) -> Product:
    """Return a product of 8-bit weights and bfloat16 inputs, by torch's own kernel."""
    halved = scale.to(torch.bfloat16)

    def product(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        out: Tensor = torch.ops.aten._weight_int8pack_mm(flat, rounded, halved)
        return out.float().view(*x.shape[:-1], -1)

    return product


def plain_product(rounded: Tensor, scale: Tensor) -> Product:
    """Return a product that makes the weights wide again, on any device: the simple version."""

    def product(x: Tensor) -> Tensor:
        return linear(x.float(), rounded.float()) * scale

    return product


KERNELS: tuple[Kernel, ...] = (
    *(functools.partial(integer_product, pack) for pack in PACKS),
    half_product,
)
"""Of CPUs."""


@functools.lru_cache
def cpu_kernel() -> Kernel:
    """Return the fastest of the kernels that are right on this processor."""
    count, outputs, columns = PROBE
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, columns, generator=generator)
    weight = torch.randn(outputs, columns, generator=generator)
    rounded, scale = rounded_weight(weight)
    expected = linear(x, weight)
    right: dict[Kernel, Callable[[], object]] = {}
    for kernel in KERNELS:
        try:
            if _is_hopeless(kernel, x, weight[:FEW]):
                continue
            products = [kernel(rounded.clone(), scale) for _ in range(PROBE_COPIES)]
            error = (products[0](x) - expected).norm() / expected.norm()
        except (RuntimeError, AttributeError, NotImplementedError):
            continue  # not on this computer, or not in this version of torch
        if error <= PROBE_TOLERANCE:
            right[kernel] = functools.partial(_multiply_all, products, x)
    best: Kernel = plain_product
    best_s = float("inf")
    times_s = least_in_turn_s(list(right.values()), PROBE_RUNS) if right else []
    for kernel, took_s in zip(right, times_s, strict=True):
        if took_s * PROBE_WORTH < best_s:
            best, best_s = kernel, took_s
    return best


def _is_hopeless(kernel: Kernel, x: Tensor, weight: Tensor) -> bool:
    """Return whether a few outputs take so long that more of them should not be measured."""
    product = kernel(*rounded_weight(weight))
    return is_hopeless(lambda: product(x), lambda: linear(x, weight))


def _multiply_all(products: Sequence[Product], x: Tensor) -> None:
    for product in products:
        product(x)


class Int8Group:
    """The weights of linear layers that read the same input: one product for all of them.

    Outputs are float32. Use it from one thread at a time.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """``layers`` are left as they are."""
        rounded, scale = rounded_weight(torch.cat([layer.weight.detach() for layer in layers]))
        kernel = cpu_kernel() if rounded.device.type == "cpu" else plain_product
        self._product = kernel(rounded, scale)
        self._sizes = [layer.out_features for layer in layers]
        self._bias = None
        if any(layer.bias is not None for layer in layers):
            self._bias = torch.cat([_bias_of(layer) for layer in layers])
        self._read: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def output(self, place: int, x: Tensor) -> Tensor:
        """Return what the layer of this place makes of ``[..., inputs]``: -> [..., outputs].

        The first layer that asks computes for all of them; each takes its own, once.
        """
        if x is not self._read or self._outputs[place] is None:
            out = self._product(x)
            if self._bias is not None:
                out += self._bias
            self._read = x
            self._outputs = list(out.split_with_sizes(self._sizes, dim=-1))
        own = self._outputs[place]
        assert own is not None
        self._outputs[place] = None
        if not any(each is not None for each in self._outputs):
            self._read = None
        return own


class Int8Linear(nn.Module):
    """Takes the place of a linear layer; outputs are float32.

    Args:
        group: has its weights; None for a layer by itself.
        place: of the layer in the group.
    """

    def __init__(self, layer: nn.Linear, group: Int8Group | None = None, place: int = 0) -> None:
        super().__init__()
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self._group = group or Int8Group([layer])
        self._place = place

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return self._group.output(self._place, x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Int8Linear":
        return self  # it has no state but the weights, which copies of a model share


def store_in_int8(model: PreTrainedModel) -> None:
    """Round a model's linear layers, its head included, in place.

    The embedding of the tokens keeps its dtype, also where it shares weights with the head: a
    forward reads only few of its rows. Everything else computes in float32, which costs a CPU less
    than 16 bits.
    """
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    embedding = model.get_input_embeddings()
    store_layers_in_int8(model, lambda: model(input_ids=token, use_cache=False), embedding)
    embedding.register_forward_hook(lambda module, arguments, rows: rows.float())


@torch.no_grad()
def store_layers_in_int8(
    module: nn.Module, run: Callable[[], object], kept: nn.Module | None = None
) -> None:
    """Round all linear layers within a module, in place. Everything else computes in float32.

    Args:
        run: a forward of the module.
        kept: what keeps its dtype.
    """
    layers = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    for names in same_input(module, run):
        group = Int8Group([layers[name] for name in names])
        for place, name in enumerate(names):
            module.set_submodule(name, Int8Linear(layers.pop(name), group, place))
    for each in module.modules():
        if each is not kept:
            _widen(each)
    fuse_norms(module)


def _bias_of(layer: nn.Linear) -> Tensor:
    """Return ``[outputs]`` float32."""
    if layer.bias is None:
        return torch.zeros(layer.out_features, device=layer.weight.device)
    return layer.bias.detach().float()


def _widen(module: nn.Module) -> None:
    """Make a module's own parameters and buffers float32."""
    half = (torch.bfloat16, torch.float16)
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dtype in half:
            setattr(module, name, nn.Parameter(parameter.float(), requires_grad=False))
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.dtype in half:
            setattr(module, name, buffer.float())
