"""A whole model in one process, read by transformers: a draft, or a target to be evaluated."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from swarm.model.checkpoint import Checkpoint
from swarm.model.fit import without_progress_bar
from swarm.model.folder import path_of
from swarm.model.gguf.source import gguf_of
from swarm.model.stored.method import METHODS, MODELOPT_FILE


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
    """Return the model of a configuration on the meta device, which takes no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
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
            if hasattr(config, "quantization_config"):  # transformers would quantize as it can
                del config.quantization_config
            model, report = type(outline_of(config)).from_pretrained(
                None, config=config, state_dict=tensors, **options
            )
        else:
            model, report = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, **options
            )
    return model, report


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
    settings = getattr(config, "quantization_config", None)
    return isinstance(settings, dict) and settings.get("quant_method") in METHODS
