"""A configuration for every model type that transformers' causal mapping knows.

Most are the defaults of their class: a published model's sizes. Some defaults make no model, or
leave off what published models have; `SETTINGS` and `VARIANTS` give them what they lack.
"""

from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

Settings = dict[str, Any]

# How far a layer sees, how many tokens it chooses, or how many it reads at once: less than the
# texts of the sweep have.
SIGHT: Settings = {
    "sliding_window": 5,
    "sliding_window_size": 5,
    "attention_chunk_size": 5,
    "window_size": 5,
    "attention_window_size": 5,
    "index_topk": 4,
    "chunk_size": 4,
    "mamba_chunk_size": 4,
}
ENCODERS = (  # whose class is also that of a decoder, if it is told so
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "reformer",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
SETTINGS: dict[str, Settings] = {
    **{each: {"is_decoder": True} for each in ENCODERS},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8, "kv_n_heads": 8}},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    # As 31B and 26B-A4B have it.
    "gemma4": {"text_config": {"hidden_size_per_layer_input": 0}},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
        "logits_scaling": 4.0,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "olmo": {"clip_qkv": 2.0},
}
LONGROPE: Settings = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 100 for i in range(48)],
    "long_factor": [2.0 + i / 10 for i in range(48)],
    "original_max_position_embeddings": 3,
}
VARIANTS: dict[str, dict[str, Settings]] = {
    "cohere": {"normed": {"logit_scale": 0.3, "use_qk_norm": True}},
    "falcon": {
        "alibi": {"alibi": True},
        "grouped": {"new_decoder_architecture": True, "num_kv_heads": 8},
    },
    "gemma4_text": {
        "E2B, E4B": {"hidden_size_per_layer_input": 256, "num_kv_shared_layers": 18},
    },
    "llama": {"tied": {"tie_word_embeddings": True}},
    "phi3": {"longrope": {"rope_parameters": LONGROPE}},
    "qwen2": {"sliding": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3}},
    "qwen2_moe": {"part dense": {"mlp_only_layers": [1], "decoder_sparse_step": 1}},
    "qwen3_moe": {"part dense": {"mlp_only_layers": [2], "decoder_sparse_step": 1}},
    "stablelm": {"normed": {"qk_layernorm": True, "use_qkv_bias": True}},
}


@dataclass(frozen=True)
class Case:
    """A model type, and what its configuration has beside the defaults.

    Attributes:
        variant: what it shows; empty for the type itself.
    """

    model_type: str
    variant: str = ""
    settings: Settings = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model_type} {self.variant}".strip()

    def config(self) -> PreTrainedConfig:
        """Return the configuration of the decoder, as large as published ones.

        Raises:
            Exception: from the class of the configuration, if it cannot have these settings.
        """
        config = AutoConfig.for_model(self.model_type, **self.settings)
        text = config.get_text_config(decoder=True)
        for name, value in SIGHT.items():
            if isinstance(getattr(text, name, None), int) and getattr(text, name) > value:
                setattr(text, name, value)
        return text


CASES: dict[str, Case] = {
    case.name: case
    for each in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for case in (
        Case(each, "", SETTINGS.get(each, {})),
        *(
            Case(each, variant, SETTINGS.get(each, {}) | settings)
            for variant, settings in VARIANTS.get(each, {}).items()
        ),
    )
}
