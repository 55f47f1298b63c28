"""Tiny random models whose layers keep a state: linear attention, state spaces, convolutions."""

from typing import Any

from helpers.models import EXPERTS, LAYERS, REMOVED, WINDOW, Architecture

ALTERNATING = {"layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)}
CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * (LAYERS // 2), "conv_L_cache": 3}
DELTA_RULE: dict[str, Any] = {
    **ALTERNATING,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 24}
MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 2,
    "mamba_expand": 2,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 4,
}
LATENT = {
    "head_dim": REMOVED,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}

RECURRENT: dict[str, Architecture] = {
    "bamba": Architecture("bamba", {**MAMBA2, "attn_layer_indices": [1, 3]}),
    "bailing_hybrid": Architecture(
        "bailing_hybrid",
        {
            **EXPERTS,
            **LATENT,
            **ALTERNATING,
            "head_dim": 8,
            "n_group": 1,
            "topk_group": 1,
            "num_mtp_layers": 0,
        },
    ),
    "falcon_h1": Architecture("falcon_h1", {**MAMBA2, "mamba_d_ssm": 64}),
    "falcon_mamba": Architecture("falcon_mamba", {"state_size": 4, "conv_kernel": 4}),
    "granitemoehybrid": Architecture(
        "granitemoehybrid",
        {**MAMBA2, **EXPERTS, "layer_types": ["mamba", "attention"] * (LAYERS // 2)},
    ),
    "inkling_text": Architecture(
        "inkling_text",
        {
            **EXPERTS,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 8,
            "sliding_window_size": WINDOW,
            "d_rel": 4,
            "rel_extent": 16,
            "layer_types": ["hybrid_sliding", "hybrid"] * (LAYERS // 2),
        },
    ),
    "jamba": Architecture(
        "jamba",
        {
            **EXPERTS,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_dt_rank": 4,
        },
    ),
    "kimi_linear": Architecture(
        "kimi_linear",
        {**EXPERTS, **LATENT, **ALTERNATING, "linear_head_dim": 8, "linear_num_heads": 4},
    ),
    "lfm2": Architecture("lfm2", CONVOLUTIONS),
    "lfm2_moe": Architecture("lfm2_moe", {**EXPERTS, **CONVOLUTIONS, "num_dense_layers": 1}),
    "lfm3": Architecture("lfm3", {**CONVOLUTIONS, "sliding_window": WINDOW}),
    "mamba": Architecture("mamba", {"state_size": 4, "conv_kernel": 4}),
    "mamba2": Architecture(
        "mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 4}
    ),
    "minimax": Architecture("minimax", {**EXPERTS, **ALTERNATING, "block_size": 4}),
    "nemotron_h": Architecture(
        "nemotron_h",
        {
            **EXPERTS,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention"],
            "num_hidden_layers": REMOVED,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 4,
            "n_routed_experts": 4,
            "moe_shared_expert_intermediate_size": 24,
        },
    ),
    "olmo_hybrid": Architecture("olmo_hybrid", DELTA_RULE),
    "qwen3_5_moe_text": Architecture("qwen3_5_moe_text", {**DELTA_RULE, **SHARED}),
    "qwen3_5_text": Architecture("qwen3_5_text", DELTA_RULE),
    "qwen3_next": Architecture("qwen3_next", {**DELTA_RULE, **SHARED}),
    "recurrent_gemma": Architecture(
        "recurrent_gemma",
        {
            "block_types": ["recurrent", "attention"],
            "lru_width": 32,
            "attention_window_size": WINDOW,
            "tie_word_embeddings": True,
        },
    ),
}

# Those whose sessions cannot share one forward, and why.
RECURRENT_ALONE: dict[str, str] = {"inkling_text": "biases scores by position"}
