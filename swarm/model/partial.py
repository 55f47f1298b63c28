"""Build only some parts of a model: a few decoder layers, the embedding stage, or the head.

The whole model is made on the meta device (it takes no memory), so that every rule which depends on a layer's index
gives what it gives in the whole model. Then all parts that are not wanted are replaced by stand-ins without weights,
and transformers' own loader fills the rest, with its renamings and conversions. Every checkpoint tensor is offered to
it as a promise; those that no remaining part asks for are never read. Nothing here knows any architecture by name.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import Shape, settle

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), counted in the dtype that is computed in; from any thread, one at a time."""

MODELS_OWN_ATTENTION = "eager"  # the one attention implementation that every architecture has
NO_ATTENTION = "absent"  # a name that transformers does not know: a forward without layers draws no masks


class Absent(nn.Module):
    """Stands where a part of the model was left out, and lets pass whatever comes."""

    def forward(self, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `value`; for ids, which an embedding would turn into vectors, zeros [..., 1]."""
        return value if value.is_floating_point() else torch.zeros((*value.shape, 1), device=value.device)


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a model are, as names of modules.

    Fields: `model_class`; `decoder`, the module whose forward runs the layers; `layers`, its list of layers;
    `embedding` and `head`, the modules that run before the first and after the last layer, in order of execution;
    `tied`, the embedding whose weights the head uses, or None; `layer_numel` and `embedding_numel`, how many weights
    each layer and the embedding stage have; `layer_linears`, the shapes of each layer's linear layers, which may be
    quantized; `largest_numel`, how many weights the largest tensor of these has; `sinks`, whether the layers attend to
    learned sinks.
    """

    model_class: type[PreTrainedModel]
    decoder: str
    layers: str
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    tied: str | None
    layer_numel: tuple[int, ...]
    embedding_numel: int
    layer_linears: tuple[tuple[Shape, ...], ...]
    largest_numel: int
    sinks: bool


def study(checkpoint: Checkpoint) -> Anatomy:
    """Find the parts of a model by running its skeleton on the meta device: no weights are read.

    Raises UnsupportedModel when it is no decoder of equal layers in a list, or cannot be quantized as is asked.
    """
    config = copy.deepcopy(checkpoint.config)
    quantization = getattr(config, "quantization_config", None)
    if quantization:
        why = "its weights are quantized, and we quantize plain ones ourselves: give the model that it was made of"
        raise UnsupportedModel(checkpoint.name, why)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation=MODELS_OWN_ATTENTION).eval()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(checkpoint.name, f"it cannot be built as a causal language model ({error})") from error
    layers = _find_layers(model, checkpoint)
    decoder = layers.rpartition(".")[0]
    weights = [dict(layer.named_parameters()) for layer in model.get_submodule(layers).children()]
    layer_numel = tuple(sum(parameter.numel() for parameter in layer.values()) for layer in weights)
    layer_linears = tuple(
        tuple((each.out_features, each.in_features) for each in layer.modules() if isinstance(each, nn.Linear))
        for layer in model.get_submodule(layers).children()
    )
    if checkpoint.quantization is not None:
        for shapes, numel in zip(layer_linears, layer_numel, strict=True):
            if unfit := checkpoint.quantization.unfit(shapes, numel):
                raise UnsupportedModel(checkpoint.name, unfit)
    order = _order_of_execution(model, decoder, layers)
    tied = None
    if config.tie_word_embeddings and model.get_output_embeddings() is not None:
        tied = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    boundary = order.index(layers) if layers in order else 0
    if boundary == 0 or boundary == len(order) - 1:
        raise UnsupportedModel(checkpoint.name, "its parts before and after the layers could not be told apart")
    embedding = tuple(order[:boundary])
    entry = [parameter.numel() for name in embedding for parameter in model.get_submodule(name).parameters()]
    return Anatomy(
        type(model),
        decoder,
        layers,
        embedding,
        tuple(order[boundary + 1 :]),
        tied,
        layer_numel=layer_numel,
        embedding_numel=sum(entry),
        layer_linears=layer_linears,
        largest_numel=max([*entry, *(parameter.numel() for layer in weights for parameter in layer.values())]),
        sinks=any("sink" in name for layer in weights for name in layer),
    )


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
    """Build the model with only these layers (absolute indices) and named modules; only their tensors are read.

    Layers are quantized as the checkpoint says, each tensor as soon as it is read; other modules never are.
    Raises UnsupportedModel when the checkpoint lacks one of their tensors or one has another shape, and ConfigError
    when this computer cannot quantize so.
    """
    kept = set(modules)
    config = copy.deepcopy(checkpoint.config)
    # Without a head there is nothing to tie the embedding to.
    config.tie_word_embeddings = anatomy.tied is not None and kept.issuperset((anatomy.tied, *anatomy.head))
    total_numel = 0

    def cut_down(model: nn.Module, config: PreTrainedConfig) -> None:
        nonlocal total_numel
        anatomy.model_class.__init__(model, config)
        owners = [name for name in _owners_of_weights(model) if not name.startswith(f"{anatomy.layers}.")]
        for name in owners:
            if name not in kept and not anatomy.layers.startswith(f"{name}."):
                model.set_submodule(name, Absent())
        every = model.get_submodule(anatomy.layers)
        assert isinstance(every, nn.ModuleList)  # found as one
        for index in range(len(every)):
            if index not in layers:
                every[index] = Absent()
        total_numel = sum(parameter.numel() for parameter in model.parameters())

    # A class with the same name, because transformers looks conversions up by it; the loader then makes our cut
    # model instead of the whole one. What the cut model does not ask for is no surprise, hence no warning.
    partial_class = type(
        anatomy.model_class.__name__,
        (anatomy.model_class,),
        {
            "__init__": cut_down,
            "__module__": anatomy.model_class.__module__,
            "_keys_to_ignore_on_load_unexpected": [".*"],
        },
    )
    lock = threading.Lock()
    done_numel = 0

    def count(numel: int) -> None:
        nonlocal done_numel
        with lock:
            done_numel += numel
            if progress is not None:
                progress(min(done_numel, total_numel) * dtype.itemsize, total_numel * dtype.itemsize)

    quantizing: dict[str, Any] = {}
    if checkpoint.quantization is not None and layers:
        checkpoint.quantization.check(torch.device(device))
        without = [*anatomy.embedding, *anatomy.head]
        quantizing["quantization_config"] = checkpoint.quantization.settings(without, dtype)
        quantizing["device_map"] = {"": "cpu"}  # the loader would choose a GPU, and which is not its choice
    promises = {name: _Promise(checkpoint, name, count) for name in checkpoint.tensor_names()}
    try:
        with without_progress_bar():
            model, report = partial_class.from_pretrained(  # type: ignore[attr-defined]
                None,
                config=config,
                state_dict=promises,
                dtype=dtype,
                attn_implementation=MODELS_OWN_ATTENTION,
                output_loading_info=True,
                **quantizing,
            )
    except (RuntimeError, ValueError) as error:
        raise UnsupportedModel(checkpoint.name, f"its weights do not fit its configuration ({error})") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UnsupportedModel(checkpoint.name, f"its checkpoint lacks the weights of {missing}")
    if quantizing:
        settle(model)
    whole: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return whole


def narrow(config: PreTrainedConfig, first: int, last: int) -> PreTrainedConfig:
    """A copy of the configuration as the forward of a decoder with only the layers [first, last) has to see it.

    Every list with one entry a layer is sliced. The layers themselves keep the whole configuration.
    """
    num_layers = int(config.num_hidden_layers)
    narrowed = copy.copy(config)
    # Through __dict__, because setting fields one by one would be validated while they disagree.
    fields = vars(narrowed)
    for key, value in list(fields.items()):
        if isinstance(value, (list, tuple)) and len(value) == num_layers:
            fields[key] = value[first:last]
    fields[narrowed.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = last - first
    return narrowed


class _Promise:
    """A checkpoint tensor that is read when the loader takes its content."""

    def __init__(self, checkpoint: Checkpoint, name: str, count: Callable[[int], None]) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._count = count

    def __getitem__(self, index: object) -> torch.Tensor:
        tensor = self._checkpoint.tensor(self._name)
        self._count(tensor.numel())
        return tensor


def _find_layers(model: nn.Module, checkpoint: Checkpoint) -> str:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == checkpoint.num_layers:
            return str(name)
    raise UnsupportedModel(checkpoint.name, f"it has no list of {checkpoint.num_layers} decoder layers")


def _owners_of_weights(model: nn.Module) -> list[str]:
    """Names of the modules that own a parameter or a persistent buffer themselves."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in model.state_dict()))


class _Boundary(nn.Module):
    """Takes the place of all layers while the skeleton runs."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self._as_tuple = as_tuple

    def __getattr__(self, name: str) -> Any:
        # Decoders read small facts off their layers (such as an attention type); any answer will do here.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return "full_attention"

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._as_tuple else hidden_states


def _order_of_execution(model: PreTrainedModel, decoder: str, layers: str) -> list[str]:
    """Names of the modules outside the layers in the order in which they run, with `layers` where the layers run.

    Containers are left out, unless they own weights themselves; so are modules that never run.
    """
    parent = model.get_submodule(decoder)
    parent.config = narrow(parent.config, 0, 1)
    parent.config._attn_implementation = NO_ATTENTION
    order: list[str] = []
    owners = set(_owners_of_weights(model))
    for name, module in model.named_modules():
        if name.startswith(f"{layers}.") or not (name in owners or next(module.children(), None) is None):
            continue
        module.register_forward_pre_hook(lambda module, args, name=name: order.append(name))
    ids = torch.zeros((1, 1), dtype=torch.long, device="meta")
    for as_tuple in (False, True):  # some decoders expect their layers to return a tuple
        boundary = _Boundary(as_tuple)
        boundary.register_forward_pre_hook(lambda module, args: order.append(layers))
        model.set_submodule(layers, nn.ModuleList([boundary]))
        order.clear()
        try:
            with torch.no_grad():
                model(input_ids=ids, use_cache=False)
            break
        except (IndexError, TypeError, ValueError, AttributeError, RuntimeError):
            if as_tuple:
                return []
    return list(dict.fromkeys(order))


@contextmanager
def without_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
