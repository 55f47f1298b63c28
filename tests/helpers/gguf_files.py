"""Write GGUF files, and make them of tiny models as llama.cpp's converter would.

Written from the format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and from
``convert_hf_to_gguf.py`` in llama.cpp. It shares no code with what reads them.
"""

import copy
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from helpers.gguf_blocks import PACK, Numbers

F32 = 0
F16 = 1
BF16 = 30
Q4_0 = 2
Q8_0 = 8
Q4_K = 12
ALIGNMENT = 32
# Numbers of value types: of a list, that of its elements.
TYPE_CODES = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11}
STRING = 8
ARRAY = 9


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        shape: as torch orders it.
    """

    kind: int
    shape: tuple[int, ...]
    content: bytes


@dataclass
class Content:
    """What a file holds. Integers are written in 32 bits, real numbers as float32."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    version: int = 3

    def bytes(self) -> bytes:
        """Return the whole file."""
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.metadata))
        for key, value in self.metadata.items():
            head += _text(key) + _value(value)
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        body = b""
        for name, tensor in self.tensors.items():
            sizes = struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
            head += _text(name) + struct.pack("<I", len(tensor.shape)) + sizes
            head += struct.pack("<IQ", tensor.kind, len(body))
            body += _padded(tensor.content, alignment)
        return _padded(head, alignment) + body

    def write(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", TYPE_CODES["?"], value)
    if isinstance(value, int):
        return struct.pack("<II", TYPE_CODES["I"], value)
    if isinstance(value, float):
        return struct.pack("<If", TYPE_CODES["f"], value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    code = "f" if any(isinstance(each, float) for each in value) else "i"
    head = struct.pack("<IIQ", ARRAY, TYPE_CODES[code], len(value))
    return head + struct.pack(f"<{len(value)}{code}", *value)


def _padded(content: bytes, alignment: int) -> bytes:
    return content + bytes(-len(content) % alignment)


def pack(values: Numbers, kind: int) -> tuple[Tensor, Numbers]:
    """Return numbers as a tensor of this type, and what its bytes stand for."""
    if kind == F32:
        return Tensor(kind, values.shape, values.astype("<f4").tobytes()), values
    if kind == F16:
        rounded = values.astype("<f2")
        return Tensor(kind, values.shape, rounded.tobytes()), rounded.astype(np.float32)
    if kind == BF16:
        bits = (values.view(np.uint32) >> 16).astype("<u2")
        meant = (bits.astype(np.uint32) << 16).view(np.float32)
        return Tensor(kind, values.shape, bits.tobytes()), meant
    _, block, packer = PACK[kind]
    packed, meant = packer(np.ascontiguousarray(values).reshape(-1, block))
    return Tensor(kind, values.shape, packed.tobytes()), meant.reshape(values.shape)


# transformers' names of modules, and those of files.
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NAMES = {
    "llama": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "granite": "granite",
    "smollm3": "smollm3",
    "minimax_m2": "minimax-m2",
    "nemotron": "nemotron",
    "olmo2": "olmo2",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
NEIGHBOURS = {"llama", "mixtral", "granite", "smollm3"}  # rotated as neighbouring values
AROUND = {"gemma2", "gemma3_text", "olmo2"}  # have a norm behind the attention, too
OFFSET = {"gemma", "gemma2", "gemma3_text", "nemotron"}  # norms multiply with 1 + weight
LAYER_NORMS = {"starcoder2": "norm_epsilon", "nemotron": "norm_eps", "stablelm": "layer_norm_eps"}


def convert(
    model: PreTrainedModel, kind: int = Q8_0, more: Mapping[str, Any] | None = None
) -> tuple[Content, PreTrainedModel]:
    """Return a model's GGUF file, and the model with the weights that its bytes stand for.

    Args:
        kind: the type of all matrices; F16 for those whose rows are no whole blocks of it.
        more: further metadata.
    """
    whole = copy.deepcopy(model)
    config = whole.config
    content = Content({**_settings(config), **(more or {})})
    state = whole.state_dict()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    for name in [each for each in state if each not in tied]:
        values = state[name].float().numpy()
        meant = np.empty_like(values)
        for stored, rows, change in _tensors(name, values, config):
            changed = change.there(values[rows])
            own = _type(kind, changed) if "norm" not in name else F32
            content.tensors[stored], packed = pack(changed, own)
            meant[rows] = change.back(packed)
        state[name].copy_(torch.from_numpy(meant))
    return content, whole


def _type(kind: int, values: Numbers) -> int:
    """Return the type of a tensor: as asked for, where its rows are whole blocks."""
    if values.ndim == 1:
        return F32
    return F16 if kind in PACK and values.shape[-1] % PACK[kind][1] else kind


@dataclass(frozen=True)
class _Change:
    """What the converter does with a tensor: heads whose halves it interleaves, what it adds."""

    heads: int = 0
    offset: float = 0.0

    def there(self, values: Numbers) -> Numbers:
        if self.heads:
            halves = values.reshape(self.heads, 2, -1, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        return values + np.float32(self.offset) if self.offset else values

    def back(self, values: Numbers) -> Numbers:
        if self.heads:
            pairs = values.reshape(self.heads, -1, 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        return values - np.float32(self.offset) if self.offset else values


def _tensors(name: str, values: Numbers, config: Any) -> list[tuple[str, Any, _Change]]:
    """Return a file's tensors that hold one of the model: their names, and which part each is."""
    everything = (slice(None),)
    kind = config.model_type
    offset = kind in OFFSET and "norm" in name and name.endswith("weight")
    change = _Change(offset=1.0 if offset else 0.0)
    stem, _, leaf = name.rpartition(".")
    if stem in OUTSIDE:
        return [(f"{OUTSIDE[stem]}.{leaf}", everything, change)]
    _, _, number, module = name.split(".", 3)
    prefix = f"blk.{number}"
    if module == "mlp.experts.gate_up_proj":
        middle = values.shape[1] // 2
        gate = (slice(None), slice(0, middle))
        up = (slice(None), slice(middle, None))
        return [
            (f"{prefix}.ffn_gate_exps.weight", gate, change),
            (f"{prefix}.ffn_up_exps.weight", up, change),
        ]
    if module == "mlp.e_score_correction_bias":
        return [(f"{prefix}.exp_probs_b.bias", everything, change)]
    if module == "mlp.experts.down_proj":
        return [(f"{prefix}.ffn_down_exps.weight", everything, change)]
    module = module.rpartition(".")[0]
    if module == "post_attention_layernorm":
        own = "post_attention_norm" if kind in AROUND else "ffn_norm"
    else:
        own = MODULES[module]
    if kind in NEIGHBOURS and own in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if own == "attn_q" else config.num_key_value_heads
        change = _Change(heads=heads)
    return [(f"{prefix}.{own}.{leaf}", everything, change)]


def _settings(config: Any) -> dict[str, Any]:
    name = NAMES[config.model_type]
    rope = config.rope_parameters
    theta = rope.get("full_attention", rope)["rope_theta"]
    own: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.freq_base": float(theta),
    }
    own["rope.dimension_count"] = int(config.head_dim * rope.get("partial_rotary_factor", 1.0))
    if config.model_type in LAYER_NORMS:
        epsilon = getattr(config, LAYER_NORMS[config.model_type])
        own["attention.layer_norm_epsilon"] = epsilon
    else:
        own["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    fields = {
        "sliding_window": "attention.sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
        "attention_multiplier": "attention.scale",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "logits_scaling": "logit_scale",
        "num_experts_per_tok": "expert_used_count",
        "num_local_experts": "expert_count",
        "num_experts": "expert_count",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    }
    if config.model_type.startswith("qwen"):
        del fields["sliding_window"]
        fields["moe_intermediate_size"] = "expert_feed_forward_length"
    if config.model_type == "minimax_m2":
        own |= {"expert_feed_forward_length": config.intermediate_size, "expert_gating_func": 2}
    if config.model_type == "stablelm":
        own["use_parallel_residual"] = config.use_parallel_residual
    for key, stored in fields.items():
        if getattr(config, key, None) is not None:
            own[stored] = getattr(config, key)
    settings = {f"{name}.{key}": value for key, value in own.items()}
    return {"general.architecture": name, "general.name": "tiny", **settings, **vocabulary(config)}


def vocabulary(config: Any, words: Sequence[str] = ()) -> dict[str, Any]:
    """Return a vocabulary of byte-level BPE without merges, as large as a configuration says."""
    tokens = [*words, *(f"<|{number}|>" for number in range(len(words), config.vocab_size))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
        "tokenizer.ggml.padding_token_id": config.pad_token_id,
    }
