"""What a configuration may ask for, checked before the library makes lists and modules of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import transformers
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import CONFIG_MAPPING, PreTrainedConfig

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.edge import explained
from swarm.model.folder import CONFIG_FILE
from swarm.model.miniature import EXPERT_COUNTS
from swarm.wire.fields import MAX_MODEL_LAYERS, MAX_VOCABULARY
from swarm.wire.tensors import MAX_HIDDEN_SIZE

MAX_EXPERTS = 1 << 16  # of a layer: most models have some hundreds, Doge 16,384 small ones
MAX_MODULES = 1 << 19  # where each of 400 experts in 60 layers has four modules, it is a fifth
CHOSEN = "num_experts_per_tok"
MAX_NESTING = 4  # of configurations that hold others
MOST = {
    "num_hidden_layers": MAX_MODEL_LAYERS,
    "hidden_size": MAX_HIDDEN_SIZE,
    "vocab_size": MAX_VOCABULARY,
}


def check_file(model: str, content: Mapping[str, Any]) -> None:
    """Check the content of a config.json before the library reads it.

    Raises:
        DamagedModel: if it gives too many layers, of which the library makes lists, or no type.
        UnsupportedModel: if the installed library does not know the model.
    """
    for each in _nested(content):
        layers = each.get("num_hidden_layers")
        if isinstance(layers, int) and layers > MAX_MODEL_LAYERS:
            raise _impossible(model, "num_hidden_layers", layers, MAX_MODEL_LAYERS)
    kind = content.get("model_type")
    if kind is not None and not isinstance(kind, str):
        why = f"says that model_type is {str(kind)[:50]}, which is no name"
        raise DamagedModel(model, CONFIG_FILE, why)
    if kind is not None and kind not in CONFIG_MAPPING:
        why = f"the installed transformers {transformers.__version__} has no model of the type"
        why = f"{why} {kind[:50]!r}"
        if "auto_map" in content:
            why = f"{why}, and code that comes with a model (its auto_map) is never run"
        raise UnsupportedModel(model, why)


def check_config(model: str, config: PreTrainedConfig) -> None:
    """Check the sizes of a decoder's configuration.

    Raises:
        DamagedModel: if one is impossible.
        UnsupportedModel: if the class of the configuration does not have it.
    """
    for field, most in MOST.items():
        size = _size(model, config, field)
        if type(size) is not int or not 1 <= size <= most:
            raise _impossible(model, field, size, most)
    fields = config.to_dict()
    counts = [each for each in fields if EXPERT_COUNTS.fullmatch(each) and _is_int(fields[each])]
    for field in counts:
        if fields[field] > MAX_EXPERTS:
            raise _impossible(model, field, fields[field], MAX_EXPERTS)
    most = max((fields[field] for field in counts), default=0)
    if most and _is_int(fields.get(CHOSEN)) and fields[CHOSEN] > most:
        raise _impossible(model, CHOSEN, fields[CHOSEN], most)


@contextmanager
def few_modules() -> Iterator[None]:
    """While open, this thread can make no more than `MAX_MODULES`: then it raises ValueError."""
    thread = threading.get_ident()
    made = 0

    def count(module: nn.Module, name: str, submodule: nn.Module) -> None:
        nonlocal made
        if threading.get_ident() == thread:
            made += 1
            if made > MAX_MODULES:
                raise ValueError(f"it has more than {MAX_MODULES:,} modules")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _size(model: str, config: PreTrainedConfig, field: str) -> object:
    with explained(
        lambda why: UnsupportedModel(model, f"its configuration has no {field} ({why})")
    ):
        return getattr(config, field)


def _is_int(value: object) -> bool:
    return type(value) is int


def _nested(content: Any, nesting: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield a configuration and those that it holds."""
    if isinstance(content, Mapping) and nesting <= MAX_NESTING:
        yield content
        for value in content.values():
            yield from _nested(value, nesting + 1)


def _impossible(model: str, field: str, size: object, most: int) -> DamagedModel:
    why = f"says that {field} is {str(size)[:50]}, which must be from 1 to {most:,}"
    return DamagedModel(model, CONFIG_FILE, why)
