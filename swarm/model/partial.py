"""Build only some parts of a model: a few decoder layers, the embedding stage, or the head.

The whole model is made on the meta device, where it takes no memory: every rule that depends on a
layer's index gives the same as in the whole model. Then stand-ins without weights replace all parts
that are not wanted, and transformers' own loader fills the rest, with its renamings and
conversions. The loader gets every checkpoint tensor as a promise; tensors of left-out parts are
never read. This module knows no architecture by name.
"""

import copy
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from swarm.errors import SwarmError, UnsupportedModel
from swarm.model.anatomy import Anatomy, Parts, owners_of_weights
from swarm.model.checkpoint import Checkpoint
from swarm.model.fit import ModelNames, check_report, load, unfit
from swarm.model.folder import unplain
from swarm.model.quantization import Quantization, settle
from swarm.model.stored.experts import pack_matrix, store_in_fewer_bits
from swarm.model.stored.packed import PackedTensor
from swarm.model.wrapping import text_of

ReportProgress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), in the dtype of the computation.

Any thread may call it, one at a time.
"""

AN_EXPERT = re.compile(r"\.experts\.[0-9]+\..*weight$")
PLAIN_TORCH_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Absent(nn.Module):
    """Takes the place of a part of the model that was left out, and returns its input.

    An embedding's place returns zeros instead, which may be added to vectors of any width.

    Args:
        part: what it replaces.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self._embeds = isinstance(part, nn.Embedding)
        self._dtype = next((each.dtype for each in part.parameters()), None)

    def forward(self, value: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `value`; for ids [..., n], which would become vectors, zeros [..., 1, 1].

        There may be fewer vectors than ids: masks of all that is cached are given for ids, too. For
        no tensor, such as the number of positions to embed, the result is a single zero.
        """
        if not isinstance(value, torch.Tensor):
            return torch.zeros((), dtype=self._dtype)
        if value.is_floating_point() and not self._embeds:
            return value
        shape = (*value.shape[:-1], 1, 1)
        return torch.zeros(shape, dtype=self._dtype, device=value.device)


class AbsentLayer(Absent):
    """Takes the place of a layer that was left out, and has the attributes of that layer.

    Models reach into all their layers when they are made, to set a buffer in each (Falcon-H1). What
    they set here has no effect. The layer is no part of the model: its weights are never filled.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        vars(self)["_layer"] = layer  # not as a module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_layer" not in vars(self):  # while it is copied
                raise
            return getattr(vars(self)["_layer"], name)


def cut(model: nn.Module, parts: Parts, layers: range, modules: Collection[str]) -> None:
    """Keep these layers and named modules of a whole model, and put stand-ins for all others."""
    owners = [name for name in owners_of_weights(model) if not name.startswith(f"{parts.layers}.")]
    cut_off: list[str] = []
    for name in owners:
        if name in modules or parts.layers.startswith(f"{name}."):
            continue
        if not f"{name}.".startswith(tuple(cut_off)):
            idle = _idle(name, parts)
            model.set_submodule(idle, Absent(model.get_submodule(idle)))
            cut_off.append(f"{idle}.")
    every = model.get_submodule(parts.layers)
    assert isinstance(every, nn.ModuleList)  # found as one
    for index in range(len(every)):
        if index not in layers:
            every[index] = AbsentLayer(every[index])


def _idle(name: str, parts: Parts) -> str:
    """Return the outermost module around one, or itself, of which nothing runs for a text.

    Towers for images go as a whole: classes may expect their parts in them. So may a module that
    runs, which is left where it is.
    """
    running = (*parts.embedding, *parts.head, parts.layers)
    names = name.split(".")
    for end in range(1, len(names)):
        around = ".".join(names[:end])
        if not any(f"{each}.".startswith(f"{around}.") for each in running):
            return around
    return name


def build(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    *,
    layers: range,
    modules: Iterable[str],
    dtype: torch.dtype,
    device: str | torch.device,
    progress: ReportProgress | None = None,
) -> PreTrainedModel:
    """Build the model with only these layers (absolute indices) and named modules.

    Reads only their tensors. Layers are quantized as the checkpoint says, each tensor as soon as it
    is read; other modules never are.

    Raises:
        UnsupportedModel: if the checkpoint lacks one of their tensors, if one has another shape, or
            if the checkpoint holds parameters that the modules of the model do not have.
        ConfigError: if this computer cannot quantize so.
    """
    kept = frozenset(modules)
    config = copy.deepcopy(checkpoint.model_config)
    # Without a head there is nothing to tie the embedding to.
    tied = anatomy.tied is not None and kept.issuperset((anatomy.tied, *anatomy.head))
    for each in (config, text_of(config)):
        each.tie_word_embeddings = tied
    cutting = _Cutting(anatomy, layers, kept, checkpoint.quantization)
    counter = _Counter(cutting, dtype.itemsize, progress)
    promises = {
        name: _Promise(checkpoint, name, counter, cutting.narrowing)
        for name in checkpoint.tensor_names()
    }
    quantizing = _quantizing(checkpoint, anatomy, dtype, device) if layers else {}

    try:
        model, report = load(
            checkpoint, cutting.model_class(), config, promises, dtype, **quantizing
        )
    except SwarmError as error:
        # The loader turns a failure to read a tensor into an error of its own.
        failures = (promise.failure for promise in promises.values() if promise.failure)
        raise next(failures, error) from error
    assert cutting.outline is not None  # the loader has made the model
    check_report(checkpoint, report, cutting.outline)
    if quantizing:
        settle(model)
    _widen_outside(model, anatomy.layers)
    whole: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return whole


def build_layer(
    checkpoint: Checkpoint,
    parts: Parts,
    config: PreTrainedConfig,
    tensors: Mapping[str, str],
) -> PreTrainedModel:
    """Build a model of one layer, in float32 on the CPU, and nothing before or behind it.

    Args:
        config: of the model, whose only layer it is.
        tensors: by their names in such a model, the checkpoint's tensors of the layer.

    Raises:
        UnsupportedModel: if one of the layer's tensors is missing, or has another shape.
    """
    cutting = _Cutting(parts, range(1), frozenset())
    counter = _Counter(cutting, torch.float32.itemsize, None)
    promises = {name: _Promise(checkpoint, stored, counter) for name, stored in tensors.items()}
    model, report = load(checkpoint, cutting.model_class(), config, promises, torch.float32)
    for keys in ("missing_keys", "mismatched_keys"):
        if report[keys]:
            raise unfit(
                checkpoint, f"those of {min(report[keys])} are not there, or of another shape"
            )
    layer: PreTrainedModel = model.eval().requires_grad_(False)
    return layer


def _widen_outside(model: nn.Module, layers: str) -> None:
    """Widen what is packed outside the layers: an embedding is read by rows, a head as a whole."""
    for name, parameter in list(model.named_parameters()):
        if isinstance(parameter, PackedTensor) and not name.startswith(f"{layers}."):
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(parameter.widen()))


class _Cutting:
    """Cuts a model down when transformers' loader makes it.

    Attributes:
        outline: names in the whole model; None before the loader made it.
        numel: how many weights are left; 0 before the loader made it.
    """

    def __init__(
        self,
        parts: Parts,
        layers: range,
        modules: frozenset[str],
        quantization: Quantization | None = None,
    ) -> None:
        self._parts = parts
        self._layers = layers
        self._modules = modules
        self._quantization = quantization
        self._fused = False  # whether experts are one parameter, and not a linear layer each
        self.outline: ModelNames | None = None
        self.numel = 0

    def model_class(self) -> Any:
        """Return a class whose instances are cut down as soon as they are made.

        It has the name of the model's own class, because transformers looks conversions up by it.
        """
        whole = self._parts.model_class

        def cut_down(model: nn.Module, config: PreTrainedConfig) -> None:
            whole.__init__(model, config)
            self.outline = ModelNames.of(model, self._parts.layers)
            cut(model, self._parts, self._layers, self._modules)
            self.numel = sum(parameter.numel() for parameter in model.parameters())
            if self._quantization is not None:
                store_in_fewer_bits(model.get_submodule(self._parts.layers), self._quantization)
                self._fused = not any(AN_EXPERT.search(name) for name in self.outline.tensors)

        members = {"__init__": cut_down, "__module__": whole.__module__}
        return type(whole.__name__, (whole,), members)

    def narrowing(self, name: str) -> Quantization | None:
        """Return how a tensor is stored as soon as it is read: one of many that become experts."""
        return self._quantization if self._fused and AN_EXPERT.search(name) else None


class _Counter:
    """Reports how much of a model has been read."""

    def __init__(self, cutting: _Cutting, itemsize: int, progress: ReportProgress | None) -> None:
        self._cutting = cutting
        self._itemsize = itemsize
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0

    def add(self, numel: int) -> None:
        with self._lock:
            self._done += numel
            if self._progress is not None:
                total = self._cutting.numel
                done = min(self._done, total)
                self._progress(done * self._itemsize, total * self._itemsize)


def _quantizing(
    checkpoint: Checkpoint, anatomy: Anatomy, dtype: torch.dtype, device: str | torch.device
) -> dict[str, Any]:
    """Return the loader's arguments to quantize the layers; none if the checkpoint is plain."""
    if checkpoint.quantization is None:
        return {}
    checkpoint.quantization.check(torch.device(device))
    without = [*anatomy.embedding, *anatomy.head]
    return {
        "quantization_config": checkpoint.quantization.settings(without, dtype),
        "device_map": {"": "cpu"},  # or the loader would choose a GPU itself
    }


class _Promise:
    """A checkpoint tensor that is read when the loader takes its content.

    Attributes:
        failure: why it could not be read, if it could not.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        counter: _Counter,
        narrowing: Callable[[str], Quantization | None] = lambda name: None,
    ) -> None:
        self.failure: Exception | None = None
        self._narrowing = narrowing
        self._checkpoint = checkpoint
        self._name = name
        self._counter = counter

    def __getitem__(self, index: object) -> torch.Tensor:
        try:
            tensor = self._checkpoint.tensor(self._name)
            if self._name.endswith(".weight") and tensor.dtype not in PLAIN_TORCH_DTYPES:
                dtype = str(tensor.dtype).removeprefix("torch.")
                raise UnsupportedModel(self._checkpoint.name, unplain(self._name, dtype))
            self._counter.add(tensor.numel())
            quantization = self._narrowing(self._name)
            if quantization is not None and tensor.dim() == 2:
                tensor = pack_matrix(tensor, quantization)
        except Exception as error:
            self.failure = error
            raise
        return tensor
