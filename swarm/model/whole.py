"""A whole model in one process, read by transformers: a draft, or a target to be evaluated."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from swarm.errors import UnsupportedModel
from swarm.model.anatomy import skeleton, take_apart
from swarm.model.checkpoint import Checkpoint
from swarm.model.fit import without_progress_bar
from swarm.model.folder import path_of
from swarm.model.gguf.source import gguf_of
from swarm.model.partial import cut
from swarm.model.stored.method import METHODS, MODELOPT_FILE
from swarm.model.wrapping import class_of, text_of, whole_of


def whole_config(name: str) -> PreTrainedConfig:
    """Return the configuration of a model: of a folder, a GGUF file or a hub id.

    Raises:
        ModelNotFound, DamagedModel, UnsupportedModel: where a GGUF file cannot be read.
        Exception: what transformers raises for another model that it cannot read.
    """
    gguf = gguf_of(name)
    if gguf is not None:
        return gguf.read_config()
    config: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return config


def outline_of(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model of a configuration on the meta device, which takes no memory.

    Towers for images and sound are not a part of it.
    """
    with torch.device("meta"):
        of_whole = whole_of(config)
        model: PreTrainedModel = _without_towers(of_whole)._from_config(copy.deepcopy(of_whole))
        return model


def read_whole(
    name: str, dtype: torch.dtype, **more: Any
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Read a whole model; return it, and the loader's report. What is stored packed is widened.

    Args:
        name: of a folder, a GGUF file or a hub id.
        more: further arguments of the loader.

    Raises:
        see `whole_config`.
    """
    config = whole_config(name)
    options = {"dtype": dtype, "output_loading_info": True, **more}
    with without_progress_bar():
        if gguf_of(name) is not None or _is_packed(name, config):
            checkpoint = Checkpoint.open(name)
            tensors = {each: _Promise(checkpoint, each) for each in checkpoint.tensor_names()}
            for each in (config, text_of(config)):
                if hasattr(each, "quantization_config"):  # transformers would quantize as it can
                    del each.quantization_config
            model, report = _without_towers(whole_of(config)).from_pretrained(
                None, config=whole_of(config), state_dict=tensors, **options
            )
        else:
            of_whole = whole_of(config)
            model, report = _without_towers(of_whole).from_pretrained(
                name, config=of_whole, use_safetensors=True, **options
            )
    return model, report


def _without_towers(config: PreTrainedConfig) -> Any:
    """Return the class of a whole model, whose instances have only the parts that read text."""
    whole = class_of(config)
    text = text_of(config)
    if text is config:
        return whole
    try:
        parts = take_apart(skeleton(config.model_type, config), config.model_type, text)
    except UnsupportedModel:
        return whole
    running = (*parts.embedding, *parts.head, *filter(None, (parts.tied,)))

    def cut_down(model: PreTrainedModel, config: PreTrainedConfig) -> None:
        whole.__init__(model, config)
        cut(model, parts, range(text.num_hidden_layers), running)

    # The same name, because transformers looks conversions up by it.
    members = {"__init__": cut_down, "__module__": whole.__module__}
    return type(whole.__name__, (whole,), members)


class _Promise:
    """A weight that is read, and widened, when transformers' loader takes its content."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name

    def __getitem__(self, index: object) -> torch.Tensor:
        return self._checkpoint.wide(self._name)


def _is_packed(name: str, config: PreTrainedConfig) -> bool:
    """Return whether the publisher has quantized a model in a way that we read ourselves."""
    folder = path_of(name)
    if folder is not None and (folder / MODELOPT_FILE).is_file():
        return True
    each = (getattr(part, "quantization_config", None) for part in (config, text_of(config)))
    return any(isinstance(one, dict) and one.get("quant_method") in METHODS for one in each)
