"""GenerationConfig: which of several values counts, which are honoured, and which are refused.

Nothing is ignored silently: a field that would change the result and cannot be honoured is an error
that names it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from swarm.errors import UnsupportedArgument
from swarm.request import Options

# transformers' own defaults, if neither the user nor the model sets a field
DEFAULT_NEW_TOKENS = 20
DEFAULT_TOP_K = 50
DEFAULT_TEMPERATURE = 1.0
MAX_SHOWN = 60  # characters of a value, in an error

HONOURED = frozenset(
    {
        *("max_length", "max_new_tokens", "max_time", "stop_strings", "eos_token_id"),
        *("pad_token_id", "bos_token_id", "do_sample", "temperature", "top_k", "top_p"),
        *("min_p", "repetition_penalty", "num_return_sequences", "return_dict_in_generate"),
        *("output_scores", "output_logits", "output_hidden_states"),
    }
)
# These say how one machine computes the same result, or belong to modes that another field selects.
WITHOUT_EFFECT = frozenset(
    {
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len"),
        *("prefill_chunk_size", "low_memory", "compile_config", "disable_compile"),
        *("continuous_batching_config", "remove_invalid_values", "early_stopping"),
        *("length_penalty", "decoder_start_token_id", "is_assistant", "num_assistant_tokens"),
        *("num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight"),
        *("max_matching_ngram_size", "transformers_version"),
    }
)
ONLY_WHEN_SAMPLING = frozenset({"top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
# Values of refused fields that change nothing, as None, False and empty ones always do.
NEUTRAL: Mapping[str, float] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "guidance_scale": 1,
}
INSTEAD = {
    "num_beams": (
        "tokens are chosen one by one: leave beams out and sample several texts with"
        " num_return_sequences"
    ),
    "logits_processor": (
        "a draft is judged by rules known beforehand: use repetition_penalty or logit_bias"
    ),
    "assistant_model": (
        "name the draft model when the model is opened: SwarmModel.from_pretrained(..., draft=...)"
    ),
    "prompt_lookup_num_tokens": "give lookup=True",
    "output_attentions": "attentions stay on the peers that compute them",
    "past_key_values": "keys and values stay on the peers: give the whole text as input_ids",
    "inputs_embeds": "peers take token ids: give input_ids",
    "suppress_tokens": "give logit_bias={token_id: -100}",
    "bad_words_ids": "give logit_bias={token_id: -100} for words of one token",
    "sequence_bias": "give logit_bias={token_id: nats} for single tokens",
}


def refused(name: str, value: object) -> UnsupportedArgument:
    """Return the error about an argument that a swarm cannot honour."""
    return UnsupportedArgument(
        name, value, INSTEAD.get(name, "a swarm cannot honour it, leave it out")
    )


def resolve(
    config: GenerationConfig | None, defaults: GenerationConfig, more: Mapping[str, Any]
) -> GenerationConfig:
    """Merge keyword arguments, ``config`` and the model's ``defaults``, in order of precedence.

    Fields that none of them sets stay None.

    Raises:
        UnsupportedArgument: for invalid values and unknown arguments.
    """
    merged = GenerationConfig() if config is None else copy.deepcopy(config)
    try:
        merged.update(**defaults.to_dict(), defaults_only=True)
        unknown: dict[str, Any] = merged.update(**more)
    except (ValueError, TypeError) as error:
        raise UnsupportedArgument("generation_config", config or dict(more), str(error)) from None
    for name, value in unknown.items():
        if value is not None:
            raise refused(name, value)
    return merged


def refuse(config: GenerationConfig) -> None:
    """Raise `UnsupportedArgument` for the first field that asks for what a swarm cannot do."""
    for name in vars(GenerationConfig()):
        value = getattr(config, name, None)
        if name.startswith("_") or name in HONOURED or name in WITHOUT_EFFECT:
            continue
        if name in ONLY_WHEN_SAMPLING and not config.do_sample:
            continue
        if value is None or value is False or value in ([], {}, ()) or value == NEUTRAL.get(name):
            continue
        raise refused(name, value)
    if config.num_return_sequences is not None and config.num_return_sequences < 1:
        raise UnsupportedArgument(
            "num_return_sequences", config.num_return_sequences, "give a positive number"
        )


def sampling(config: GenerationConfig) -> Options:
    """Return the options of sampling; without ``do_sample`` greedy ones, whatever else is set.

    Raises:
        UnsupportedArgument: for a temperature of 0 or below.
    """
    if not config.do_sample:
        return {"temperature": 0.0}
    temperature = DEFAULT_TEMPERATURE if config.temperature is None else config.temperature
    if temperature <= 0:
        raise UnsupportedArgument(
            "temperature", temperature, "give a number above 0, or do_sample=False"
        )
    return {
        "temperature": temperature,
        "top_k": DEFAULT_TOP_K if config.top_k is None else config.top_k,
        "top_p": 1.0 if config.top_p is None else config.top_p,
        "min_p": 0.0 if config.min_p is None else config.min_p,
    }


def new_tokens(config: GenerationConfig, length: int, max_positions: int | None) -> int:
    """Return the maximum number of new tokens after inputs of ``length`` tokens, with padding.

    Raises:
        UnsupportedArgument: if ``max_length`` leaves none.
    """
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    if config.max_length is None:
        room = DEFAULT_NEW_TOKENS if not max_positions else max_positions - length
        return max(1, min(DEFAULT_NEW_TOKENS, room))
    if config.max_length <= length:
        raise UnsupportedArgument(
            "max_length",
            config.max_length,
            f"the input has {length} tokens already: give more, or max_new_tokens",
        )
    return int(config.max_length) - length


def stop_strings(config: GenerationConfig) -> Sequence[str]:
    """Return the strings that end a text."""
    given = config.stop_strings
    return (given,) if isinstance(given, str) else tuple(given or ())


def token_ids(ids: Any) -> tuple[int, ...]:
    """Return token ids as a tuple; transformers takes one, several, a tensor, or None."""
    if isinstance(ids, Tensor):
        ids = ids.tolist()
    return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)
