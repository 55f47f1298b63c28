"""Tiny random models of every architecture that the swarm promises to serve."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

LAYERS = 4
VOCAB = 97
REMOVED = object()  # takes a common setting away
WINDOW = 5  # of sliding-window layers: shorter than every sequence in the tests

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
ALTERNATING = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
}
EXPERTS = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
# Multi-head latent attention: keys and values of all heads are expanded from a latent.
LATENT = {
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": REMOVED,
    "num_key_value_heads": 4,
    "rope_interleave": True,
}
GROUPED_EXPERTS = {
    **EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "topk_method": "group_limited_greedy",
    "first_k_dense_replace": 1,
    "mlp_layer_types": ["dense"] + ["sparse"] * (LAYERS - 1),
    "routed_scaling_factor": 1.5,
}
# An indexer, which chooses fewer rows than the tests have. With few heads many rows would score 0.
SPARSE = {"index_topk": 4, "index_n_heads": 32, "index_head_dim": 8}
GEMMA4 = {
    **ALTERNATING,
    "global_head_dim": 16,
    "final_logit_softcapping": 3.0,
    "tie_word_embeddings": True,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 4.0,
}


@dataclass(frozen=True)
class Architecture:
    """A model type, with settings that exercise its special features."""

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> PreTrainedModel:
        """Save a checkpoint of random weights, and return the model (float32, eager attention).

        The model is the caller's own. It is made once: many tests save the same.
        """
        made = _MADE.get(repr(self))
        if made is None:
            model = self._make()
            with TemporaryDirectory() as saved:
                model.save_pretrained(saved, max_shard_size="20KB")
                files = {path.name: path.read_bytes() for path in Path(saved).iterdir()}
            made = _MADE[repr(self)] = Made(model, files, torch.get_rng_state())
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in made.files.items():
            (folder / name).write_bytes(content)
        torch.set_rng_state(made.rng_state)
        return deepcopy(made.model)

    def _make(self) -> PreTrainedModel:
        torch.manual_seed(11)
        settings = {
            key: value for key, value in {**COMMON, **self.settings}.items() if value is not REMOVED
        }
        config = AutoConfig.for_model(self.model_type, **settings)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            # Norms, biases and sinks are random, too, and large enough to change the logits.
            for name, parameter in model.named_parameters():
                scale = 0.5 if "norm" in name or "ln" in name else 0.2
                parameter.add_(torch.randn_like(parameter) * scale)
        return model


@dataclass(frozen=True)
class Made:
    """A model, the files of its checkpoint, and the state of torch's generator afterwards."""

    model: PreTrainedModel
    files: Mapping[str, bytes]
    rng_state: torch.Tensor


_MADE: dict[str, Made] = {}  # by architecture


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama"),
    "llama_tied": Architecture("llama", {"tie_word_embeddings": True}),
    "mistral": Architecture("mistral", {"sliding_window": WINDOW}),
    "qwen2": Architecture(
        "qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 3}
    ),
    "qwen3": Architecture("qwen3", {"tie_word_embeddings": True}),
    "gemma": Architecture("gemma", {"tie_word_embeddings": True}),
    "gemma2": Architecture(
        "gemma2", {**ALTERNATING, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    ),
    "gemma4_text": Architecture("gemma4_text", {**GEMMA4, "hidden_size_per_layer_input": 0}),
    "gemma4_text_moe": Architecture(
        "gemma4_text",
        {
            **GEMMA4,
            **EXPERTS,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "top_k_experts": 2,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
    ),
    "gemma3_text": Architecture("gemma3_text", {**ALTERNATING, "tie_word_embeddings": True}),
    "phi": Architecture("phi"),
    "phi3": Architecture("phi3", {"sliding_window": WINDOW}),
    "phi3_longrope": Architecture(
        "phi3",
        {
            "original_max_position_embeddings": 3,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 1.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 3.0, 4.0, 5.0],
                "original_max_position_embeddings": 3,
            },
        },
    ),
    "olmo": Architecture("olmo", {"clip_qkv": 2.0}),
    "olmo2": Architecture("olmo2"),
    "starcoder2": Architecture("starcoder2", {"sliding_window": WINDOW}),
    "granite": Architecture("granite", GRANITE),
    "cohere": Architecture(
        "cohere", {"logit_scale": 0.3, "use_qk_norm": True, "tie_word_embeddings": True}
    ),
    "cohere2": Architecture(
        "cohere2", {**ALTERNATING, "logit_scale": 0.3, "tie_word_embeddings": True}
    ),
    "mixtral": Architecture("mixtral", EXPERTS),
    "qwen2_moe": Architecture(
        "qwen2_moe",
        {
            **EXPERTS,
            "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [1],
            "decoder_sparse_step": 1,
        },
    ),
    "qwen3_moe": Architecture(
        "qwen3_moe", {**EXPERTS, "mlp_only_layers": [2], "decoder_sparse_step": 1}
    ),
    "stablelm": Architecture("stablelm", {"qk_layernorm": True, "use_qkv_bias": True}),
    "gpt_neox": Architecture("gpt_neox"),
    "falcon": Architecture(
        "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": REMOVED}
    ),
    "falcon_alibi": Architecture(
        "falcon", {"alibi": True, "multi_query": True, "head_dim": REMOVED}
    ),
    "smollm3": Architecture("smollm3", {"no_rope_layer_interval": 2, "no_rope_layers": None}),
    "glm4": Architecture("glm4"),
    "nanochat": Architecture("nanochat"),
    "nemotron": Architecture("nemotron"),
    "exaone4": Architecture("exaone4", ALTERNATING),
    "ministral": Architecture("ministral", ALTERNATING),
    "gpt_oss": Architecture("gpt_oss", {**ALTERNATING, **EXPERTS}),
    "helium": Architecture("helium"),
    "seed_oss": Architecture("seed_oss"),
    "deepseek_v2": Architecture("deepseek_v2", {**LATENT, **GROUPED_EXPERTS}),
    "deepseek_v3": Architecture("deepseek_v3", {**LATENT, **GROUPED_EXPERTS}),
    "deepseek_v32": Architecture("deepseek_v32", {**LATENT, **GROUPED_EXPERTS, **SPARSE}),
    "glm_moe_dsa": Architecture("glm_moe_dsa", {**LATENT, **GROUPED_EXPERTS, **SPARSE}),
    "glm_moe_dsa_shared": Architecture(
        "glm_moe_dsa",
        {
            **LATENT,
            **GROUPED_EXPERTS,
            **SPARSE,
            "indexer_types": ["full", "shared"] * (LAYERS // 2),
        },
    ),
    "glm4_moe_lite": Architecture("glm4_moe_lite", {**LATENT, **GROUPED_EXPERTS}),
    "axk1": Architecture("axk1", {**LATENT, **GROUPED_EXPERTS}),
    "minicpm3": Architecture("minicpm3", LATENT),
    "youtu": Architecture("youtu", LATENT),
    "bloom": Architecture("bloom", {"n_layer": LAYERS, "n_head": 4}),
    "xlstm": Architecture("xlstm"),
}

# Architectures whose sessions cannot share one forward, and why. They are served one after another.
UNPACKED: dict[str, str] = {
    "bloom": "attends by its own code",
    "falcon": "attends by its own code",
    "falcon_alibi": "attends by its own code",
    "phi3_longrope": "its rotary embedding turns all of a row by the row's largest position",
}

# Architectures that cannot be served at all, and why.
UNSUPPORTED: dict[str, str] = {
    "xlstm": "its parts before and after the layers cannot be told apart",
}
