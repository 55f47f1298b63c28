"""Weights in fewer bits: how linear layers are stored, by which library, and in how many bytes.

Only weights are quantized. Activations keep their dtype, and every token is computed independently,
so that frames can be cut and packed as usual. Quantizing happens on the CPU, from the checkpoint's
own values: the same layers have the same bits on every peer, on any device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICES = ("cpu", "cuda")  # for which the libraries have kernels of all quantizations
INSTALL = "pip install 'swarm[quant]'"
Shape = tuple[int, int]
"""The shape of a linear layer's weight: outputs, inputs."""


@dataclass(frozen=True)
class Quantization:
    """One way of storing a weight: `INT8` or `NF4`.

    Attributes:
        name: users' name for it.
        form: the meaning of its bits. It is part of a model's fingerprint: peers of one form are
            exchangeable.
        libraries: those that transformers needs to load it.
        bits: of one weight.
        block: how many weights of a row share a scale; None for all of them. A row must be whole
            blocks.
        scale_bytes: memory of a block's scale.
        scratch_bytes: temporary memory for each weight of the largest tensor; measured.
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
        """Return the memory of a weight of this shape."""
        rows, columns = shape
        scales = columns // (self.block or columns)
        return rows * (columns * self.bits // 8 + scales * self.scale_bytes)

    def unfit(self, shapes: Sequence[Shape], numel: int) -> str | None:
        """Return why a layer cannot be stored so, in words; None if it can.

        Args:
            shapes: of the linear layers and of the matrices of experts in it.
            numel: how many weights the layer has in all.
        """
        if 2 * sum(rows * columns for rows, columns in shapes) < numel:
            return "most of its weights are in other layers than linear ones and experts"
        odd = next((shape for shape in shapes if self.block and shape[1] % self.block), None)
        if odd is not None:
            rows = f"rows of whole blocks of {self.block} weights"
            return f"{self.name} needs {rows}, and one has {odd[1]}"
        return None

    def check(self, device: "torch.device", field: str = "quantization") -> None:
        """Raise `ConfigError` about ``field`` if this computer cannot load it for that device."""
        from transformers import utils

        available = {
            "torchao": utils.is_torchao_available,
            "bitsandbytes": utils.is_bitsandbytes_available,
            "accelerate": utils.is_accelerate_available,
        }
        missing = [library for library in self.libraries if not available[library]()]
        if missing:
            needs = f"{self.name} needs {' and '.join(missing)}"
            problem = f"{needs}, or a newer one than is installed here; {INSTALL}"
            raise ConfigError(field, problem)
        if device.type not in DEVICES:
            devices = " and ".join(DEVICES)
            problem = (
                f"{self.name} weights are computed with on {devices} only, not on {device.type}"
            )
            raise ConfigError(field, problem)

    def settings(self, without: list[str], dtype: "torch.dtype") -> Any:
        """Return `from_pretrained`'s ``quantization_config``, for all modules but ``without``."""
        return self._settings(without, dtype)


def named(name: str | None) -> Quantization | None:
    """Return the quantization of this name; None for None and for ``none``.

    Raises:
        ConfigError: for an unknown name.
    """
    if name is None or name == "none":
        return None
    if name not in QUANTIZATIONS:
        problem = f"{name!r} is none that we know; give none, {' or '.join(QUANTIZATIONS)}"
        raise ConfigError("quantization", problem)
    return QUANTIZATIONS[name]


def weight_bytes(model: "nn.Module") -> int:
    """Return the memory of all parameters and buffers, quantized ones as they are packed."""
    tensors = (*model.parameters(), *model.buffers())
    nbytes = {id(part): part.nbytes for each in tensors for part in _parts(each)}
    return sum(nbytes.values())


def settle(model: "nn.Module") -> None:
    """Make every module compute in the dtype of its input.

    On CPUs with AVX-512, bitsandbytes would compute in bfloat16 for any input, and an honest peer
    would be caught as a liar.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _parts(tensor: "torch.Tensor") -> "list[torch.Tensor]":
    if hasattr(tensor, "__tensor_flatten__"):  # torchao
        inner = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return [part for each in inner for part in _parts(each)]
    state = getattr(tensor, "quant_state", None)  # bitsandbytes
    return [tensor] if state is None else [tensor, state.absmax]


def _int8(without: list[str], dtype: "torch.dtype") -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    weights = Int8WeightOnlyConfig(set_inductor_config=False)
    return TorchAoConfig(weights, modules_to_not_convert=without)


def _nf4(without: list[str], dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        # It takes a mean over all scales, whose last bit depends on the order of adding.
        bnb_4bit_use_double_quant=False,
        llm_int8_skip_modules=without,
    )


INT8 = Quantization(
    name="int8",
    form="int8, symmetric, one float32 scale a row",
    libraries=("torchao", "accelerate"),
    bits=8,
    block=None,
    scale_bytes=5,  # one of them is a zero point, which is always 0
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
