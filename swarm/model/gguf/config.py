"""The configuration of a model, as transformers writes it, from the metadata of a GGUF file."""

import math
import struct
from collections.abc import Sequence
from typing import Any

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf.architectures import ARCHITECTURES, Architecture, find
from swarm.model.gguf.file import GgufFile
from swarm.model.gguf.metadata import Metadata

EMBEDDING = "token_embd.weight"
LM_HEAD = "output.weight"
FACTORS = "rope_freqs.weight"
EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Llama 3's: the context before it was stretched, and the wavelengths between which factors rise.
LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FACTOR_TOLERANCE = 1e-3


def architecture_of(metadata: Metadata) -> Architecture:
    """Return the architecture of a file. Raises UnsupportedModel for one that is not read."""
    found = find(metadata)
    if found is None:
        known = ", ".join(sorted(ARCHITECTURES))
        why = f"its GGUF file holds the architecture {metadata.architecture[:50]!r}"
        raise UnsupportedModel(metadata.model, f"{why}, and those that are read are {known}")
    return found


def config_of(metadata: Metadata, file: GgufFile) -> dict[str, Any]:
    """Return the content of the model's config.json.

    Raises:
        DamagedModel: if a value is missing or impossible.
        UnsupportedModel: if the file says something about the model that is not understood.
    """
    architecture = architecture_of(metadata)
    heads = metadata.size("attention.head_count")
    hidden = metadata.size("embedding_length")
    head_dim = metadata.size("attention.key_length", hidden // heads or 1)
    if metadata.size("attention.value_length", head_dim) != head_dim:
        why = "its values are not as wide as its keys, which its architecture does not know"
        raise UnsupportedModel(metadata.model, why)
    factors = _factors(metadata, file, head_dim)
    epsilon = EPSILONS[1] if metadata.has(EPSILONS[1]) else EPSILONS[0]
    config = {
        "model_type": architecture.model_type,
        "vocab_size": _vocabulary(metadata),
        "hidden_size": hidden,
        "num_hidden_layers": metadata.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.size("context_length"),
        architecture.epsilon: metadata.number(epsilon),
        "rope_parameters": _positions(metadata, architecture.partial, head_dim, factors),
        "tie_word_embeddings": LM_HEAD not in metadata.tensors,
        **token_ids(metadata),
    }
    config |= architecture.settings(metadata)
    if "intermediate_size" not in config:
        config["intermediate_size"] = metadata.size("feed_forward_length")
    if config["model_type"] == "gemma3_text":
        local = {
            "rope_type": "default",
            "rope_theta": metadata.positive("rope.freq_base_swa", 10000.0),
        }
        config["rope_parameters"] = {
            "full_attention": config["rope_parameters"],
            "sliding_attention": local,
        }
    metadata.check_understood(architecture.harmless)
    return config


def token_ids(metadata: Metadata) -> dict[str, Any]:
    """Return the tokens that begin, end and fill up texts, as a configuration names them."""
    vocabulary = _vocabulary(metadata)

    def of(key: str) -> int | None:
        return metadata.index(f"tokenizer.ggml.{key}", vocabulary)

    ends = sorted({token for key in END_TOKENS if (token := of(key)) is not None})
    return {
        "bos_token_id": of("bos_token_id"),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": of("padding_token_id"),
    }


def _vocabulary(metadata: Metadata) -> int:
    embedding = metadata.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise DamagedModel(metadata.model, metadata.file, f"holds no matrix {EMBEDDING}")
    return embedding.shape[0]


def _factors(metadata: Metadata, file: GgufFile, head_dim: int) -> Sequence[float] | None:
    """Return the factors by which wavelengths of positions are stretched; None without any.

    Raises:
        DamagedModel: unless they are positive numbers, one for two values of a head.
    """
    stored = file.tensors.get(FACTORS)
    if stored is None:
        return None
    if stored.type.name != "F32" or stored.shape != (head_dim // 2,):
        why = f"holds {FACTORS} that is no list of {head_dim // 2:,} numbers in F32"
        raise DamagedModel(metadata.model, metadata.file, why)
    factors = struct.unpack(f"<{stored.shape[0]}f", file.read(FACTORS))
    if not all(0 < factor < math.inf for factor in factors):
        why = f"holds {FACTORS} that are not positive everywhere"
        raise DamagedModel(metadata.model, metadata.file, why)
    return factors


def _positions(
    metadata: Metadata, partial: bool, head_dim: int, factors: Sequence[float] | None
) -> dict[str, Any]:
    """Return the settings of rotary positions. Raises UnsupportedModel and DamagedModel."""
    theta = metadata.positive("rope.freq_base", 10000.0)
    rotated = metadata.size("rope.dimension_count", head_dim)
    positions: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if rotated != head_dim and not partial:
        why = f"it rotates {rotated} of {head_dim} values of a head"
        raise UnsupportedModel(metadata.model, f"{why}, which its architecture does not know")
    if partial:
        positions["partial_rotary_factor"] = rotated / head_dim
    kind = metadata.word("rope.scaling.type", "none")
    if kind in ("linear", "yarn"):
        positions |= {"rope_type": kind, "factor": metadata.positive("rope.scaling.factor")}
        if kind == "yarn":
            original = metadata.size("rope.scaling.original_context_length")
            positions["original_max_position_embeddings"] = original
    elif kind not in ("none", ""):
        why = f"its positions are stretched by {kind[:50]!r}, which is not read from GGUF files"
        raise UnsupportedModel(metadata.model, why)
    if factors is not None:
        if kind not in ("none", "") or rotated != head_dim:
            raise UnsupportedModel(metadata.model, "its positions are stretched in two ways")
        positions |= {"rope_type": "llama3", "factor": max(factors, default=1.0)} | LLAMA3
        _check_llama3(metadata, positions, head_dim, factors)
    return positions


def _check_llama3(
    metadata: Metadata, positions: dict[str, Any], head_dim: int, factors: Sequence[float]
) -> None:
    """Raise UnsupportedModel unless factors are those that Llama 3's rule gives.

    The rule is ``_compute_llama3_parameters`` in transformers' ``modeling_rope_utils.py``.
    """
    factor, low, high = (
        positions["factor"],
        positions["low_freq_factor"],
        positions["high_freq_factor"],
    )
    context = positions["original_max_position_embeddings"]
    expected = []
    for index in range(0, head_dim, 2):
        turns = context / (2 * math.pi * positions["rope_theta"] ** (index / head_dim))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        expected.append(1 / ((1 - smooth) / factor + smooth))
    same = len(factors) == len(expected) and all(
        abs(given - wanted) <= FACTOR_TOLERANCE * wanted
        for given, wanted in zip(factors, expected, strict=True)
    )
    if not same:
        why = f"its positions are stretched by factors of its own ({FACTORS})"
        raise UnsupportedModel(metadata.model, f"{why}, and only Llama 3's rule is known")
