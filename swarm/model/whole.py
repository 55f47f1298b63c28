"""A whole model in one process, read by transformers: a draft, or a target to be evaluated."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from swarm.model.fit import without_progress_bar
from swarm.model.gguf.source import gguf_of


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
    """Read a whole model; return it, and the loader's report. What a GGUF file packs is widened.

    Args:
        name: of a folder, a GGUF file or a hub id.
        more: further arguments of the loader.

    Raises:
        see `whole_config`.
    """
    gguf = gguf_of(name)
    with without_progress_bar():
        if gguf is None:
            model, report = AutoModelForCausalLM.from_pretrained(
                name,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                **more,
            )
        else:
            config = gguf.read_config()
            model, report = type(outline_of(config)).from_pretrained(
                None,
                config=config,
                state_dict=gguf.wide(),
                dtype=dtype,
                output_loading_info=True,
                **more,
            )
    return model, report
