"""Build only some parts of a model: a few decoder layers, the embedding stage, or the head.

The whole model is made on the meta device (it takes no memory), so that every rule which depends on
a layer's index gives what it gives in the whole model. Then all parts that are not wanted are
replaced by stand-ins without weights, and transformers' own loader fills the rest, with its
renamings and conversions. Every checkpoint tensor is offered to it as a promise; those that no
remaining part asks for are never read. Nothing here knows any architecture by name.
"""

import copy
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from swarm.errors import SwarmError, UnsupportedModel
from swarm.model.anatomy import MODELS_OWN_ATTENTION, Anatomy, Parts, owners_of_weights
from swarm.model.checkpoint import Checkpoint
from swarm.model.edge import explained
from swarm.model.fit import Outline, check_report, unfit, without_progress_bar
from swarm.model.folder import unplain
from swarm.model.quantization import settle

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), counted in the dtype that is computed in; from any
thread, one at a time."""


PLAIN_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Absent(nn.Module):
    """Stands where a part of the model was left out, and lets pass whatever comes."""

    def forward(self, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `value`; for ids, which an embedding would turn into vectors, zeros [..., 1]."""
        return (
            value
            if value.is_floating_point()
            else torch.zeros((*value.shape, 1), device=value.device)
        )


def cut(model: nn.Module, parts: Parts, layers: range, modules: Collection[str]) -> None:
    """Replace all parts of a whole model but these layers and named modules by stand-ins without
    weights."""
    owners = [name for name in owners_of_weights(model) if not name.startswith(f"{parts.layers}.")]
    for name in owners:
        if name not in modules and not parts.layers.startswith(f"{name}."):
            model.set_submodule(name, Absent())
    every = model.get_submodule(parts.layers)
    assert isinstance(every, nn.ModuleList)  # found as one
    for index in range(len(every)):
        if index not in layers:
            every[index] = Absent()


def build(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    *,
    layers: range,
    modules: Iterable[str],
    dtype: torch.dtype,
    device: str | torch.device,
    progress: Progress | None = None,
) -> PreTrainedModel:
    """Build the model with only these layers (absolute indices) and named modules; only their
    tensors are read.

    Layers are quantized as the checkpoint says, each tensor as soon as it is read; other modules
    never are. Raises UnsupportedModel when the checkpoint lacks one of their tensors or one has
    another shape, or when it holds parameters that the modules of the model do not have, and
    ConfigError when this computer cannot quantize so.
    """
    kept = set(modules)
    config = copy.deepcopy(checkpoint.config)
    # Without a head there is nothing to tie the embedding to.
    config.tie_word_embeddings = anatomy.tied is not None and kept.issuperset(
        (anatomy.tied, *anatomy.head)
    )
    total_numel = 0
    outline: Outline | None = None

    def cut_down(model: nn.Module, config: PreTrainedConfig) -> None:
        nonlocal total_numel, outline
        anatomy.model_class.__init__(model, config)
        outline = Outline.of(model, anatomy)
        cut(model, anatomy, layers, kept)
        total_numel = sum(parameter.numel() for parameter in model.parameters())

    # A class with the same name, because transformers looks conversions up by it; the loader then
    # makes our cut model instead of the whole one.
    partial_class = type(
        anatomy.model_class.__name__,
        (anatomy.model_class,),
        {"__init__": cut_down, "__module__": anatomy.model_class.__module__},
    )
    lock = threading.Lock()
    done_numel = 0

    def count(numel: int) -> None:
        nonlocal done_numel
        with lock:
            done_numel += numel
            if progress is not None:
                progress(
                    min(done_numel, total_numel) * dtype.itemsize, total_numel * dtype.itemsize
                )

    quantizing: dict[str, Any] = {}
    if checkpoint.quantization is not None and layers:
        checkpoint.quantization.check(torch.device(device))
        without = [*anatomy.embedding, *anatomy.head]
        quantizing["quantization_config"] = checkpoint.quantization.settings(without, dtype)
        # the loader would choose a GPU, and which is not its choice
        quantizing["device_map"] = {"": "cpu"}
    promises = {name: _Promise(checkpoint, name, count) for name in checkpoint.tensor_names()}

    try:
        with without_progress_bar(), explained(lambda why: unfit(checkpoint, why)):
            model, report = partial_class.from_pretrained(  # type: ignore[attr-defined]
                None,
                config=config,
                state_dict=promises,
                dtype=dtype,
                attn_implementation=MODELS_OWN_ATTENTION,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told by `check_report`, by name
                **quantizing,
            )
    except SwarmError as error:
        # What fails while the loader reads a tensor comes out of it as an error of the loader's
        # own.
        raise next(
            (promise.failure for promise in promises.values() if promise.failure), error
        ) from error
    assert outline is not None  # the loader has made the model
    check_report(checkpoint, report, outline)
    if quantizing:
        settle(model)
    whole: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return whole


class _Promise:
    """A checkpoint tensor that is read when the loader takes its content.

    Attributes:
        failure: why it could not be read, if it could not.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, count: Callable[[int], None]) -> None:
        self.failure: Exception | None = None
        self._checkpoint = checkpoint
        self._name = name
        self._count = count

    def __getitem__(self, index: object) -> torch.Tensor:
        try:
            tensor = self._checkpoint.tensor(self._name)
            if self._name.endswith(".weight") and tensor.dtype not in PLAIN_DTYPES:
                dtype = str(tensor.dtype).removeprefix("torch.")
                raise UnsupportedModel(self._checkpoint.name, unplain(self._name, dtype))
            self._count(tensor.numel())
        except Exception as error:
            self.failure = error
            raise
        return tensor
