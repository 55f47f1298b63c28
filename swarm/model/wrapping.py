"""Models that hold a language model among other parts, such as towers for images and sound.

transformers' mappings say which class makes the whole; this module knows no architecture by name.
"""

import copy
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    PreTrainedConfig,
)

MAPPINGS = (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)


def text_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the decoder: a part of the whole, or the whole."""
    text: PreTrainedConfig = config.get_text_config(decoder=True)
    return text


def whole_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the model that gives the logits: the whole, or its decoder.

    It is the decoder where the library has a class of the decoder alone that reads the whole's
    weights, or none for the whole.
    """
    text = text_of(config)
    model_class = _class_of(config)
    own = getattr(model_class, "config_class", None)
    return config if own is not None and isinstance(config, own) else text


def class_of(config: PreTrainedConfig) -> Any:
    """Return the class of the model that a configuration from `whole_of` describes.

    Raises:
        ValueError: if transformers has none.
    """
    model_class = _class_of(config)
    if model_class is None:
        raise ValueError(f"transformers has no class for {config.model_type} that gives logits")
    return model_class


def with_text(config: PreTrainedConfig, text: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of a whole model with another decoder; of a decoder: `text`."""
    own = text_of(config)
    if own is config:
        return text
    changed = copy.deepcopy(config)
    fields = vars(changed)  # setting them one by one would validate them while they disagree
    for key, value in vars(config).items():
        if value is own:
            fields[key] = text
    return changed


def _class_of(config: PreTrainedConfig) -> Any:
    for mapping in MAPPINGS:
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, (tuple, list)) else found
    return None
