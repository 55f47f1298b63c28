"""The architectures that are read from GGUF files: their names for tensors, and their settings.

llama.cpp's converters (https://github.com/ggml-org/llama.cpp, ``convert_hf_to_gguf.py``) rename
tensors, and change some: they reorder the rows of queries and keys where ggml rotates neighbouring
values instead of halves, and add the 1 of a norm that multiplies with ``1 + weight``. Settings that
llama.cpp's code fixes for an architecture are fixed here, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.errors import UnsupportedModel
from swarm.model.gguf.metadata import Metadata

Settings = Callable[[Metadata], dict[str, Any]]
"""Return fields of the model's configuration, besides those that all architectures share."""

OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PROJECTIONS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
BEHIND_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
NORMS_AROUND = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    **BEHIND_NORMS,
}
EXPERTS = {
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
SHARED_EXPERT = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
MIXTRAL = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
}
MINIMAX = {"exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias"}
SIGMOID = 2  # llama_expert_gating_func_type in llama.cpp
# Keys that change nothing: sizes that tensors give, and remains of training.
HARMLESS = frozenset({"vocab_size", "rope.scaling.finetuned", "attention.causal"})


@dataclass(frozen=True)
class Architecture:
    """One architecture of GGUF files.

    Attributes:
        model_type: transformers' name of it.
        layer: modules of a layer, by their names in a file; ``{}`` stands for an expert's number. A
            name with its ending is that of a tensor.
        settings: see `Settings`.
        epsilon: the configuration's name for that of its norms.
        halves: whether queries and keys are reordered in the file: ggml rotates neighbouring
            values, the model halves.
        partial: whether a part of a head may be rotated, instead of all of it.
        norm_offset: what the file adds to the weights of norms.
        harmless: further keys that change nothing.
    """

    model_type: str
    layer: Mapping[str, str]
    settings: Settings = field(default=lambda metadata: {})
    epsilon: str = "rms_norm_eps"
    halves: bool = False
    partial: bool = False
    norm_offset: float = 0.0
    harmless: frozenset[str] = HARMLESS


def find(metadata: Metadata) -> Architecture | None:
    """Return the architecture of a file; None for one that is not read."""
    if metadata.architecture == "llama" and metadata.has("expert_count"):
        return ARCHITECTURES["mixtral"]
    name = metadata.architecture
    return ARCHITECTURES.get(name) if name != "mixtral" else None


def _biases(metadata: Metadata) -> dict[str, Any]:
    return {
        "attention_bias": "blk.0.attn_q.bias" in metadata.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in metadata.tensors,
    }


def _attention_bias(metadata: Metadata) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_q.bias" in metadata.tensors}


def _mixtral(metadata: Metadata) -> dict[str, Any]:
    return {
        "num_local_experts": metadata.size("expert_count"),
        "num_experts_per_tok": metadata.size("expert_used_count"),
    }


def _qwen_experts(metadata: Metadata) -> dict[str, Any]:
    return {
        "num_experts": metadata.size("expert_count"),
        "num_experts_per_tok": metadata.size("expert_used_count"),
        "moe_intermediate_size": metadata.size("expert_feed_forward_length"),
        # the others are an expert's alone
        "intermediate_size": metadata.size("feed_forward_length", 1),
    }


def _qwen2_moe(metadata: Metadata) -> dict[str, Any]:
    shared = metadata.size("expert_shared_feed_forward_length")
    # llama.cpp takes the chances of the chosen experts as they are.
    return _qwen_experts(metadata) | {
        "shared_expert_intermediate_size": shared,
        "norm_topk_prob": False,
    }


def _qwen3_moe(metadata: Metadata) -> dict[str, Any]:
    # llama.cpp divides the chances of the chosen experts by their sum.
    return _qwen_experts(metadata) | {"norm_topk_prob": True}


def _gemma2(metadata: Metadata) -> dict[str, Any]:
    return {
        "sliding_window": metadata.size("attention.sliding_window"),
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _attended_width(metadata, layers_of_27b=46),
    }


def _gemma3(metadata: Metadata) -> dict[str, Any]:
    return {
        "sliding_window_pattern": metadata.size("attention.sliding_window_pattern", 6),
        "sliding_window": metadata.size("attention.sliding_window"),
        "query_pre_attn_scalar": _attended_width(metadata, layers_of_27b=62),
    }


def _attended_width(metadata: Metadata, layers_of_27b: int) -> int:
    """Return the width whose root divides attention scores, which llama.cpp knows by the size."""
    heads = metadata.size("attention.head_count")
    by_heads = metadata.size("embedding_length") // heads
    if metadata.size("block_count") == layers_of_27b:
        return by_heads
    return metadata.size("attention.key_length", by_heads)


def _phi3(metadata: Metadata) -> dict[str, Any]:
    window = metadata.size("attention.sliding_window") if _has_window(metadata) else None
    if metadata.has("rope.scaling.original_context_length"):
        original = metadata.size("rope.scaling.original_context_length")
    else:
        original = metadata.size("context_length")
    return {"sliding_window": window, "original_max_position_embeddings": original}


def _has_window(metadata: Metadata) -> bool:
    return metadata.has("attention.sliding_window")


def _granite(metadata: Metadata) -> dict[str, Any]:
    head_dim = metadata.size("embedding_length") // metadata.size("attention.head_count")
    return _biases(metadata) | {
        "attention_multiplier": metadata.number("attention.scale", head_dim**-0.5),
        "embedding_multiplier": metadata.number("embedding_scale", 1.0),
        "residual_multiplier": metadata.number("residual_scale", 1.0),
        "logits_scaling": metadata.number("logit_scale", 1.0),
    }


def _smollm3(metadata: Metadata) -> dict[str, Any]:
    return _biases(metadata) | {"no_rope_layer_interval": 4}  # as llama.cpp's code has it


def _minimax_m2(metadata: Metadata) -> dict[str, Any]:
    if metadata.size("expert_gating_func", SIGMOID) != SIGMOID:
        why = "its experts are chosen by another function than its architecture knows"
        raise UnsupportedModel(metadata.model, why)
    own = metadata.size("expert_feed_forward_length")
    metadata.size("feed_forward_length", own)  # the same, or that of no layer
    return _mixtral(metadata) | {"intermediate_size": own}


def _stablelm(metadata: Metadata) -> dict[str, Any]:
    parallel = metadata.flag(metadata.own("use_parallel_residual"), True)
    return {
        "use_qkv_bias": "blk.0.attn_q.bias" in metadata.tensors,
        # llama.cpp's code looks at the tensors, too
        "use_parallel_residual": parallel and "blk.0.ffn_norm.weight" not in metadata.tensors,
    }


def _starcoder2(metadata: Metadata) -> dict[str, Any]:
    return {"use_bias": "blk.0.attn_q.bias" in metadata.tensors}


ARCHITECTURES = {
    "llama": Architecture("llama", PROJECTIONS | MLP | NORMS, _biases, halves=True),
    "mixtral": Architecture("mixtral", PROJECTIONS | NORMS | MIXTRAL, _mixtral, halves=True),
    "qwen2": Architecture("qwen2", PROJECTIONS | MLP | NORMS),
    "qwen2moe": Architecture(
        "qwen2_moe", PROJECTIONS | NORMS | EXPERTS | SHARED_EXPERT, _qwen2_moe
    ),
    "qwen3": Architecture("qwen3", PROJECTIONS | MLP | NORMS | QK_NORMS, _attention_bias),
    "qwen3moe": Architecture(
        "qwen3_moe",
        PROJECTIONS | NORMS | QK_NORMS | EXPERTS | {"ffn_gate_inp": "mlp.gate"},
        lambda metadata: _qwen3_moe(metadata) | _attention_bias(metadata),
    ),
    "gemma": Architecture("gemma", PROJECTIONS | MLP | NORMS, norm_offset=1.0),
    "gemma2": Architecture("gemma2", PROJECTIONS | MLP | NORMS_AROUND, _gemma2, norm_offset=1.0),
    "gemma3": Architecture(
        "gemma3_text", PROJECTIONS | MLP | NORMS_AROUND | QK_NORMS, _gemma3, norm_offset=1.0
    ),
    "phi3": Architecture(
        "phi3",
        NORMS
        | {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        _phi3,
        partial=True,
    ),
    "granite": Architecture("granite", PROJECTIONS | MLP | NORMS, _granite, halves=True),
    "smollm3": Architecture("smollm3", PROJECTIONS | MLP | NORMS, _smollm3, halves=True),
    "olmo2": Architecture("olmo2", PROJECTIONS | MLP | QK_NORMS | BEHIND_NORMS, _attention_bias),
    "minimax-m2": Architecture(
        "minimax_m2",
        PROJECTIONS | NORMS | QK_NORMS | MIXTRAL | MINIMAX,
        _minimax_m2,
        partial=True,
    ),
    "nemotron": Architecture(
        "nemotron",
        PROJECTIONS | NORMS | {name: MLP[name] for name in ("ffn_up", "ffn_down")},
        _biases,
        epsilon="norm_eps",
        partial=True,
        norm_offset=1.0,
    ),
    "stablelm": Architecture(
        "stablelm", PROJECTIONS | MLP | NORMS, _stablelm, epsilon="layer_norm_eps", partial=True
    ),
    "starcoder2": Architecture(
        "starcoder2",
        PROJECTIONS | NORMS | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        _starcoder2,
        epsilon="norm_epsilon",
    ),
}
