"""Where the parts of a model are, found by running its skeleton, which has no weights.

This module knows no architecture by name. A module belongs to the embedding stage if it runs before
the layers, and to the head if it runs behind them; some belong to both.
"""

import copy
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import product
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.edge import explained
from swarm.model.folder import check_tensors
from swarm.model.limits import few_modules
from swarm.model.quantization import Shape
from swarm.model.stored.experts import expert_parameters, matrices
from swarm.model.wrapping import class_of, text_of
from swarm.routing.cuts import Cuts

MODELS_OWN_ATTENTION = "eager"  # the one attention implementation that every architecture has
# A name that transformers does not know: then a forward without layers makes no masks.
NO_ATTENTION = "absent"
MAX_RETURNED = 2  # by a layer: its output, and what the next layer gets beside it


@dataclass(frozen=True)
class Parts:
    """The parts of a model, as names of modules.

    Attributes:
        model_class: the class of the whole model.
        decoder: the module that turns ids or vectors into the last layer's outputs, normed.
        layers: the list of layers.
        returned: how many elements the tuple has that a layer returns, its output first; 0 if it
            returns no tuple.
        masked: whether a forward without layers needs a mask.
        embedding: the modules that run before the first layer, in order of execution.
        head: those that run after the last layer.
        tied: the embedding whose weights the head uses, or None.
    """

    model_class: type[PreTrainedModel]
    decoder: str
    layers: str
    returned: int
    masked: bool
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    tied: str | None


@dataclass(frozen=True)
class Anatomy(Parts):
    """The parts of a model, and how many weights they have.

    Attributes:
        layer_numel: weights of each layer.
        embedding_numel: weights of the embedding stage.
        layer_linears: the shapes of each layer's linear layers and of the matrices of its experts,
            which may be quantized.
        widest: the most numbers that one product makes of a token in a layer; 0 if the layers have
            mostly other products than those of linear layers and experts.
        largest_numel: weights of the largest tensor in the layers or the embedding stage.
        sinks: whether the layers attend to learned sinks.
        cuts: where the layers may be cut; anywhere, as far as `study` can tell.
        stepwise: whether layers that keep states have to read one token at a time; only a rehearsal
            finds that out.
    """

    layer_numel: tuple[int, ...]
    embedding_numel: int
    layer_linears: tuple[tuple[Shape, ...], ...]
    widest: int
    largest_numel: int
    sinks: bool
    cuts: Cuts
    stepwise: bool = False


# Each span, the head and the plan of a peer's memory ask.
_studied: "weakref.WeakKeyDictionary[Checkpoint, Anatomy]" = weakref.WeakKeyDictionary()


def study(checkpoint: Checkpoint) -> Anatomy:
    """Find the parts of a model by running its skeleton on the meta device: reads no weights.

    What was found of a checkpoint is remembered as long as it lives.

    Raises:
        UnsupportedModel: if the model is no decoder of equal layers in a list, cannot be quantized
            as the checkpoint says, or if its checkpoint holds other tensors than plain weights.
    """
    if checkpoint not in _studied:
        _studied[checkpoint] = _study(checkpoint)
    return _studied[checkpoint]


def _study(checkpoint: Checkpoint) -> Anatomy:
    if getattr(checkpoint.config, "is_encoder_decoder", False):
        why = "it is an encoder with a decoder, and only decoders that stand alone are served"
        raise UnsupportedModel(checkpoint.name, why)
    model = skeleton(checkpoint.name, checkpoint.model_config)
    own = {part for name in model.state_dict() for part in name.split(".")}
    check_tensors(checkpoint.name, checkpoint.tensor_names(), checkpoint.stored(), own)
    if checkpoint.quantization is not None and checkpoint.is_packed:
        why = "its weights are quantized by their publisher, and are served in these bits alone"
        raise UnsupportedModel(checkpoint.name, why)
    layers = list(model.get_submodule(find_layers(model, checkpoint.name, checkpoint.config)))
    weights = [dict(layer.named_parameters()) for layer in layers]
    layer_numel = tuple(sum(parameter.numel() for parameter in layer.values()) for layer in weights)
    layer_linears = tuple(_linears(layer) for layer in layers)
    if checkpoint.quantization is not None:
        for shapes, numel in zip(layer_linears, layer_numel, strict=True):
            if unfit := checkpoint.quantization.unfit(shapes, numel):
                raise UnsupportedModel(checkpoint.name, unfit)
    parts = take_apart(model, checkpoint.name, checkpoint.config)
    embedding = [model.get_submodule(name) for name in parts.embedding]
    embedding_numels = [part.numel() for each in embedding for part in each.parameters()]
    numels = [parameter.numel() for layer in weights for parameter in layer.values()]
    return Anatomy(
        **vars(parts),
        layer_numel=layer_numel,
        embedding_numel=sum(embedding_numels),
        layer_linears=layer_linears,
        widest=_widest(layers, checkpoint.config),
        largest_numel=max(embedding_numels + numels),
        sinks=any("sink" in name for layer in weights for name in layer),
        cuts=Cuts.anywhere(len(layers)),
    )


def _linears(layer: nn.Module) -> tuple[Shape, ...]:
    linears = (each for each in layer.modules() if isinstance(each, nn.Linear))
    shapes = [(each.out_features, each.in_features) for each in linears]
    for owner, _, parameter in expert_parameters(layer):
        shapes += matrices(owner, parameter)
    return tuple(shapes)


def _widest(layers: list[nn.Module], config: PreTrainedConfig) -> int:
    chosen = getattr(config, "num_experts_per_tok", None)
    widths: list[int] = []
    for layer in layers:
        linears = _linears(layer)
        numel = sum(parameter.numel() for parameter in layer.parameters())
        if 2 * sum(rows * columns for rows, columns in linears) < numel:
            return 0
        widths += [each.out_features for each in layer.modules() if isinstance(each, nn.Linear)]
        for owner, _, parameter in expert_parameters(layer):
            experts = matrices(owner, parameter)
            # transformers' own mark of classes that give a token to some experts, not to all
            some = chosen if hasattr(owner, "is_transposed") else None
            widths.append((some or len(experts)) * experts[0][0])
    return max(widths)


def skeleton(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Return the whole model on the meta device.

    Raises:
        UnsupportedModel: if the model of this ``name`` cannot be built.
    """

    def unbuildable(why: str) -> UnsupportedModel:
        why = _unknown_word(config, why) or why
        return UnsupportedModel(name, f"it cannot be built as a causal language model ({why})")

    with explained(unbuildable), torch.device("meta"), few_modules():
        copied = copy.deepcopy(config)
        model: PreTrainedModel = class_of(copied)._from_config(
            copied, attn_implementation=MODELS_OWN_ATTENTION
        )
        return model.eval()


def _unknown_word(config: PreTrainedConfig, why: str) -> str | None:
    """Return which setting a library did not find in its tables, in words; None if it is none."""
    settings = config.to_dict()
    inner = [
        (name, value)
        for each in settings.values()
        if isinstance(each, dict)
        for name, value in each.items()
    ]
    for name, value in (*settings.items(), *inner):
        if isinstance(value, str) and why == f"KeyError: {value!r}":
            return f"its {name} {value!r} is not known"
    return None


def take_apart(model: PreTrainedModel, name: str, config: PreTrainedConfig) -> Parts:
    """Find the parts of a skeleton, which loses its layers and cannot be used again.

    Raises:
        UnsupportedModel: if its parts cannot be told apart.
    """
    layers = find_layers(model, name, config)
    decoder = find_decoder(model, layers, name)
    tied = None
    if (
        getattr(model.config, "tie_word_embeddings", False)
        and model.get_output_embeddings() is not None
    ):
        embedding = model.get_input_embeddings()
        tied = next(each for each, module in model.named_modules() if module is embedding)

    def undecodable(why: str) -> UnsupportedModel:
        return UnsupportedModel(name, f"its decoder does not run with other layers ({why})")

    with explained(undecodable):
        order, returned, masked = _order_of_execution(model, decoder, layers)
    if order.count(layers) > 1:
        raise UnsupportedModel(name, "it runs its layers more than once for each token")
    boundary = order.index(layers) if layers in order else 0
    if boundary == 0 or boundary == len(order) - 1:
        why = "its parts before and after the layers could not be told apart"
        raise UnsupportedModel(name, why)
    before = tuple(dict.fromkeys(order[:boundary]))
    behind = tuple(dict.fromkeys(order[boundary + 1 :]))
    return Parts(type(model), decoder, layers, returned, masked, before, behind, tied)


def narrow(config: PreTrainedConfig, first: int, last: int) -> PreTrainedConfig:
    """Return the configuration for a decoder with only the layers [first, last).

    Every list with one entry a layer is sliced, also one that the configuration works out from the
    number of a layer (Jamba). The layers themselves keep the whole configuration.
    """
    num_layers = int(config.num_hidden_layers)
    narrowed = copy.copy(config)
    # Through __dict__: setting fields one by one would validate them while they disagree.
    fields = vars(narrowed)
    for key, value in list(fields.items()):
        if isinstance(value, (list, tuple)) and len(value) == num_layers:
            fields[key] = value[first:last]
    fields[narrowed.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = last - first
    worked_out = {
        name: value[first:last] for name, value in _properties(config) if len(value) == num_layers
    }
    if worked_out:
        narrowed.__class__ = type(type(config).__name__, (type(config),), worked_out)
    return narrowed


def _properties(config: PreTrainedConfig) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the lists and tuples that a configuration's class works out, by their names."""
    for name in set(dir(type(config))).difference(dir(PreTrainedConfig)):
        if isinstance(getattr(type(config), name, None), property):
            try:
                value = getattr(config, name)
            except Exception:  # it may only make sense for other models of the class
                continue
            if isinstance(value, (list, tuple)):
                yield name, value


class LayersStandIn(nn.Module):
    """Takes the place of all layers: a decoder runs it as a layer, which returns ``output``.

    Attributes:
        output: the last layer's output, [1, n, hidden]; None to return the first layer's input.
    """

    def __init__(self, returned: int) -> None:
        """`returned`: elements of the tuple that a layer returns; 0 for no tuple."""
        super().__init__()
        self.output: torch.Tensor | None = None
        self._returned = returned

    def __getattr__(self, name: str) -> Any:
        # Decoders read attributes of their layers, such as an attention type; any value will do.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return "full_attention"

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = hidden_states if self.output is None else self.output
        return (output, *[None] * (self._returned - 1)) if self._returned else output


def replace_layers(
    model: PreTrainedModel, decoder: str, layers: str, stand_in: LayersStandIn
) -> None:
    """Make the decoder run the stand-in and no layer."""
    narrowed = narrow(model.get_submodule(decoder).config, 0, 1)
    narrowed._attn_implementation = NO_ATTENTION
    for each in (decoder, layers.rpartition(".")[0]):
        model.get_submodule(each).config = narrowed
    model.set_submodule(layers, nn.ModuleList([stand_in]))


def mask(needed: bool, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the arguments of a forward without layers that need a mask, or do not."""
    return {"attention_mask": torch.zeros((1, 1, 1, 1), device=device)} if needed else {}


def owners_of_weights(model: nn.Module) -> list[str]:
    """Return the names of the modules that own a parameter or a persistent buffer themselves."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in model.state_dict()))


def find_layers(model: PreTrainedModel, model_name: str, config: PreTrainedConfig) -> str:
    """Return the name of the list of a model's layers.

    Args:
        config: of the decoder, which may be a part of the model.

    Raises:
        UnsupportedModel: if it has none.
    """
    num_layers = int(config.num_hidden_layers)
    lists = [
        str(name)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    # A tower for images may have as many layers as the decoder.
    text = text_of(model.config)
    if lists:
        return next((each for each in lists if _config_around(model, each) is text), lists[0])
    raise UnsupportedModel(model_name, f"it has no list of {num_layers} decoder layers")


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a whole model's decoder. Raises UnsupportedModel if it has none."""
    config = model.config.get_text_config(decoder=True)
    layers = model.get_submodule(find_layers(model, "the model", config))
    assert isinstance(layers, nn.ModuleList)  # no other is looked for
    return layers


def _config_around(model: nn.Module, name: str) -> Any:
    """Return the configuration of the nearest module around one that has one."""
    while name := name.rpartition(".")[0]:
        if (config := getattr(model.get_submodule(name), "config", None)) is not None:
            return config
    return getattr(model, "config", None)


def find_decoder(model: nn.Module, layers: str, model_name: str) -> str:
    """Return the name of the module around the list of layers that takes vectors in place of ids.

    It is the one that owns the list, or, where an encoder was made a decoder, one around that.

    Raises:
        UnsupportedModel: if there is none.
    """
    name = layers
    while name := name.rpartition(".")[0]:
        if "inputs_embeds" in signature(model.get_submodule(name).forward).parameters:
            return name
    raise UnsupportedModel(model_name, "it takes no hidden states in place of token ids")


def _order_of_execution(
    model: PreTrainedModel, decoder: str, layers: str
) -> tuple[list[str], int, bool]:
    """Return the modules outside the layers in the order in which they run.

    Containers are left out, unless they own weights themselves; so are modules that never run.

    Returns:
        The names, with `layers` where the layers run (a module that runs twice is named twice); how
        many elements the tuple has that a layer returns; whether the forward needs a mask.
    """
    order: list[str] = []
    owners = set(owners_of_weights(model))
    for name, module in model.named_modules():
        is_leaf = next(module.children(), None) is None
        if name.startswith(f"{layers}.") or not (name in owners or is_leaf):
            continue
        module.register_forward_pre_hook(lambda module, args, name=name: order.append(name))
    ids = torch.zeros((1, 1), dtype=torch.long, device="meta")
    config = model.get_submodule(decoder).config
    failures: list[Exception] = []
    # Some decoders expect a tuple of their layers; some change a mask before them.
    for masked, returned in product((False, True), range(MAX_RETURNED + 1)):
        model.get_submodule(decoder).config = config
        stand_in = LayersStandIn(returned)
        stand_in.register_forward_pre_hook(lambda module, args: order.append(layers))
        replace_layers(model, decoder, layers, stand_in)
        order.clear()
        try:
            with torch.no_grad():
                model(input_ids=ids, use_cache=False, **mask(masked, ids.device))
        except Exception as error:  # from the model's code, which may use the layers in any way
            failures.append(error)
            continue
        return order, returned, masked
    raise failures[0]
