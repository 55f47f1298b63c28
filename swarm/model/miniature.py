"""A miniature of a model: a configuration of the same class with the same flags, but small sizes.

The code of a model derives its structure from names and flags; sizes only scale it. So a miniature
behaves as the model does, at almost no cost. Configurations name their fields differently, hence
the patterns. A wrong miniature cannot be built or run; then the next, larger one is tried.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedConfig

from swarm.model.wrapping import text_of

VOCAB = 64
INNER = 64  # width between the two halves of an MLP, or of a projection
WIDE = 128  # width of a model whose heads do not set its width
EXPERTS = 4
CHOSEN_EXPERTS = 2
# Enough for every pattern of layers in use: dense ones first, every fourth or sixth another kind.
LAYERS = 8
MAX_LAYERS = 160
POSITIONS = 512

NOT_ARGUMENTS = ("model_type", "transformers_version", "_name_or_path", "dtype", "torch_dtype")
DEPTHS = re.compile(r"num_hidden_layers|num_layers|n_layers|(encoder_)?depth|encoder_layers|layers")
WIDTHS = ("hidden_size", "embed_dim", "width", "d_model")
HEAD_COUNTS = ("num_attention_heads", "num_heads", "encoder_attention_heads", "heads")
TOWER_HEAD = 16  # width of a head in a tower
NOT_SIZES = re.compile(r"position|n_ctx|window|length|context|chunk|seq|period|interval|step|bits")
TOKENS = re.compile(r"token_(id|index)")
POSITION_COUNTS = re.compile(r"max_position|n_positions|n_ctx|max_seq")
HEADS = re.compile(r"(?<!d_)head(?!.*(dim|size|rank|width))")
STATES = re.compile(r"d_ssm")  # the width of all heads that keep states
EXPERT_COUNTS = re.compile(
    r"(num|n|moe_num)_?(local|routed)?_experts|num_experts_?\w*(?<!tok)(?<!token)"
)
CHOSEN = re.compile(r"experts_per_tok|top_?k$|moe_k$|num_selected")
INDEX_HEADS = "index_n_heads"
# Fewer heads of an indexer score many rows 0, and which of these it chooses is chance.
LEAST_INDEX_HEADS = 16
GROUPS = re.compile(r"n_group|topk_group|num_expert_group")
STATE_GROUPS = re.compile(r"(mamba_)?n_groups")
INNERS = re.compile(r"intermediate|ffn|d_inner|n_inner|expert_dim|mlp_dim|lora_rank")


@dataclass(frozen=True)
class _Scale:
    """Sizes of a model, and those of its miniature."""

    width: int
    small_width: int
    heads: int
    small_heads: int
    layers: int
    small_layers: int


def miniatures(
    config: PreTrainedConfig, every_layer: bool = False
) -> "Iterator[Callable[[], PreTrainedConfig]]":
    """Yield makers of miniatures, the smallest first.

    Configurations check themselves when they are made, and may raise any exception.

    Args:
        every_layer: whether all have as many layers as the model.
    """
    layers = int(text_of(config).num_hidden_layers)
    counts = (layers,) if every_layer else (min(layers, LAYERS), min(layers, MAX_LAYERS))
    for few in dict.fromkeys(counts):
        for heads in (2, 4):
            yield partial(_miniature, config, few, heads)


def _miniature(config: PreTrainedConfig, layers: int, heads: int) -> PreTrainedConfig:
    text = text_of(config)
    small = _small_decoder(text, layers, heads)
    if text is config:
        return small
    fields = {
        name: small.to_dict() if getattr(config, name, None) is text else _shallow(value)
        for name, value in config.to_dict().items()
        if name not in NOT_ARGUMENTS
    }
    return type(config)(**fields)


def _shallow(value: Any) -> Any:
    """Return a small configuration of a tower, with a single layer: it is made, and never run."""
    if not isinstance(value, dict):
        return value
    width = next((value[name] for name in WIDTHS if isinstance(value.get(name), int)), 0)
    heads = next((value[name] for name in HEAD_COUNTS if isinstance(value.get(name), int)), 0)
    fields = dict(value)
    for key, each in value.items():
        if type(each) is not int:
            continue
        if DEPTHS.fullmatch(str(key)) and each:
            fields[key] = 1
        elif INNERS.search(str(key)):
            fields[key] = min(each, INNER)
        elif width and heads and each == width:
            fields[key] = min(width, heads * TOWER_HEAD)
    return fields


def _small_decoder(config: PreTrainedConfig, layers: int, heads: int) -> PreTrainedConfig:
    scale = _scale(config, layers, heads)
    fields = {name: _shrunk(name, value, scale) for name, value in config.to_dict().items()}
    for standard, value in (("hidden_size", scale.small_width), ("num_hidden_layers", layers)):
        fields[config.attribute_map.get(standard, standard)] = value
    for name in NOT_ARGUMENTS:
        fields.pop(name, None)
    return type(config)(**fields)


def _scale(config: PreTrainedConfig, layers: int, heads: int) -> _Scale:
    width = int(config.hidden_size)
    all_heads = _field(config, "num_attention_heads")
    small_heads = min(heads, all_heads) if all_heads else 0
    small_width = small_heads * (width // all_heads) if all_heads else min(width, WIDE)
    if _field(config, "head_dim") and small_width % 16:
        small_width = min(width, WIDE)
    return _Scale(width, small_width, all_heads, small_heads, int(config.num_hidden_layers), layers)


def _field(config: PreTrainedConfig, name: str) -> int:
    try:
        value = getattr(config, name, None)
    except Exception:  # some configurations raise where the value differs from layer to layer
        return 0
    return value if isinstance(value, int) else 0


def _shrunk(name: str, value: Any, scale: _Scale) -> Any:
    if isinstance(value, dict):
        if "rope" in name:
            return value
        if all(str(key).isdecimal() for key in value):  # what single layers have, by their indices
            value = {key: each for key, each in value.items() if int(key) < scale.small_layers}
        return {key: _shrunk(str(key), each, scale) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return _shrunk_list(name, list(value), scale)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return _shrunk_number(name, value, scale)


def _shrunk_list(name: str, values: list[Any], scale: _Scale) -> list[Any]:
    if len(values) == scale.layers:
        values = values[: scale.small_layers]
    if TOKENS.search(name) or HEADS.search(name) or INNERS.search(name):
        return [_shrunk(name, each, scale) for each in values]
    return values


def _shrunk_number(name: str, value: int, scale: _Scale) -> int:
    small = value
    if TOKENS.search(name):
        small = value % VOCAB if value >= 0 else value
    elif "vocab_size" in name:
        small = min(value, VOCAB)
    elif POSITION_COUNTS.search(name):
        small = min(value, POSITIONS)
    elif INNERS.search(name):
        small = min(value, INNER)
    elif GROUPS.fullmatch(name):
        small = min(value, 1)
    elif STATE_GROUPS.fullmatch(name):
        small = min(value, 2)
    elif CHOSEN.search(name):
        small = min(value, CHOSEN_EXPERTS)
    elif EXPERT_COUNTS.fullmatch(name):
        small = min(value, EXPERTS)
    elif name.endswith("shared_layers"):
        small = value if scale.small_layers == scale.layers else min(value, scale.small_layers // 2)
    elif name == INDEX_HEADS:
        small = min(value, LEAST_INDEX_HEADS)
    elif (HEADS.search(name) or STATES.search(name)) and value > 1:
        part = (scale.small_heads, scale.heads) if scale.heads else (scale.small_width, scale.width)
        small = max(1, value * part[0] // part[1])
    elif value == scale.width and not NOT_SIZES.search(name):
        small = scale.small_width
    return small
