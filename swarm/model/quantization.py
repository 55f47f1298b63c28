"""Weights in fewer bits: which linear layers of a model are stored how, by which library, and in
how many bytes.

Only weights are quantized. What is computed with them has the dtype that it has without, and every
token is computed for itself, so that frames can be cut and packed as ever. Quantizing happens on
the CPU, from the checkpoint's own values: the same layers have the same bits on every peer,
whatever it computes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICES = ("cpu", "cuda")  # where the libraries that we use have kernels for all of this
INSTALL = "pip install 'swarm[quant]'"
Shape = tuple[int, int]
"""Of a linear layer's weight: outputs, inputs."""


@dataclass(frozen=True)
class Quantization:
    """One way of storing a weight. The two that there are stand below.

    Attributes:
        name: what users call it.
        form: what its bits mean. It is part of a model's fingerprint: peers of one form are
            exchangeable.
        libraries: that transformers needs to load it.
        bits: of one weight.
        block: so many weights of a row share a scale; None for all of it. A row must be whole
            blocks.
        scale_bytes: what is kept of a block besides its weights.
        scratch_bytes: that quantizing takes for each weight of the largest tensor, for a moment;
            measured.
    """

    name: str
    form: str
    libraries: tuple[str, ...]
    bits: int
    block: int | None
    scale_bytes: int
    scratch_bytes: int
    _settings: "Callable[[list[str], torch.dtype], Any]"

    def nbytes(self, shape: Shape) -> int:
        """What a weight of this shape takes."""
        rows, columns = shape
        return rows * (
            columns * self.bits // 8 + columns // (self.block or columns) * self.scale_bytes
        )

    def unfit(self, shapes: Sequence[Shape], numel: int) -> str | None:
        """Why a layer of ``numel`` weights cannot be stored so, of which linear layers of these
        shapes have a part."""
        if 2 * sum(rows * columns for rows, columns in shapes) < numel:
            return (
                "most of its weights are not in linear layers (but in experts, or stored another"
                " way)"
            )
        odd = next((shape for shape in shapes if self.block and shape[1] % self.block), None)
        if odd is not None:
            return (
                f"{self.name} needs rows of whole blocks of {self.block} weights, and one has"
                f" {odd[1]}"
            )
        return None

    def check(self, device: "torch.device") -> None:
        """Raises `ConfigError` if this computer cannot load it for that device."""
        from transformers import utils

        available = {
            "torchao": utils.is_torchao_available,
            "bitsandbytes": utils.is_bitsandbytes_available,
            "accelerate": utils.is_accelerate_available,
        }
        missing = [library for library in self.libraries if not available[library]()]
        if missing:
            problem = (
                f"{self.name} needs {' and '.join(missing)}, or a newer one than is installed here;"
                f" {INSTALL}"
            )
            raise ConfigError("quantization", problem)
        if device.type not in DEVICES:
            problem = (
                f"{self.name} weights are computed with on {' and '.join(DEVICES)} only, not on"
                f" {device.type}"
            )
            raise ConfigError("quantization", problem)

    def settings(self, without: list[str], dtype: "torch.dtype") -> Any:
        """For `from_pretrained(quantization_config=)`; the modules named in ``without`` stay as
        they are."""
        return self._settings(without, dtype)


def named(name: str | None) -> Quantization | None:
    """None for None and for ``none``. Raises `ConfigError` for a name that there is not."""
    if name is None or name == "none":
        return None
    if name not in QUANTIZATIONS:
        raise ConfigError(
            "quantization",
            f"{name!r} is none that we know; give none, {' or '.join(QUANTIZATIONS)}",
        )
    return QUANTIZATIONS[name]


def weight_bytes(model: "nn.Module") -> int:
    """Memory of all parameters and buffers, packed as they are."""
    tensors = {
        id(part): part.nbytes
        for each in (*model.parameters(), *model.buffers())
        for part in _parts(each)
    }
    return sum(tensors.values())


def settle(model: "nn.Module") -> None:
    """Have every module compute in the dtype of what it is given.

    On CPUs with AVX-512 bitsandbytes would compute in bfloat16 whatever it is given: an honest peer
    would be caught.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _parts(tensor: "torch.Tensor") -> "list[torch.Tensor]":
    if hasattr(tensor, "__tensor_flatten__"):  # torchao
        return [
            part
            for name in tensor.__tensor_flatten__()[0]
            for part in _parts(getattr(tensor, name))
        ]
    state = getattr(tensor, "quant_state", None)  # bitsandbytes
    return [tensor] if state is None else [tensor, state.absmax]


def _int8(without: list[str], dtype: "torch.dtype") -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(
        Int8WeightOnlyConfig(set_inductor_config=False), modules_to_not_convert=without
    )


def _nf4(without: list[str], dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        # a mean over all scales, whose last bit depends on the order of adding
        bnb_4bit_use_double_quant=False,
        llm_int8_skip_modules=without,
    )


INT8 = Quantization(
    name="int8",
    form="int8, symmetric, one float32 scale a row",
    libraries=("torchao", "accelerate"),
    bits=8,
    block=None,
    scale_bytes=5,  # with a zero point that is always 0
    scratch_bytes=16,
    _settings=_int8,
)
NF4 = Quantization(  # "4-bit NormalFloat", arXiv 2305.14314
    name="nf4",
    form="nf4, one float32 scale for 64",
    libraries=("bitsandbytes", "accelerate"),
    bits=4,
    block=64,
    scale_bytes=4,
    scratch_bytes=20,
    _settings=_nf4,
)
QUANTIZATIONS = {each.name: each for each in (INT8, NF4)}
